"""The shortcuts of a training change how long a net takes, and nothing else."""

import pytest
import torch

from headstart.nets import build_net
from headstart.training.shortcuts import shortcuts

NETS = {"lenet": (1, 32), "cifar-cnn": (3, 32), "small-cnn": (3, 32)}


def gradients(net, x):
    torch.manual_seed(1)  # of dropout
    logits = net(x)
    net.zero_grad()
    logits.square().sum().backward()
    return logits.detach(), {name: parameter.grad.clone() for name, parameter in net.named_parameters()}


@pytest.mark.parametrize("name", NETS)
def test_logits_and_gradients_are_those_of_the_net_itself(name):
    torch.manual_seed(0)
    net = build_net(name, 10).double()
    x = torch.randn(3, NETS[name][0], NETS[name][1], NETS[name][1], dtype=torch.float64)
    logits, expected = gradients(net, x)
    with shortcuts(net):
        shortened, found = gradients(net, x)
    torch.testing.assert_close(shortened, logits)
    for parameter, value in expected.items():
        torch.testing.assert_close(found[parameter], value, msg=parameter)


def test_the_shortcuts_are_taken():
    """LeNet's C5 sees its whole map: no convolution is left of it. The CIFAR net's ReLUs get what was pooled."""
    net, sides = build_net("cifar-cnn", 10), []
    net.relu1.register_forward_hook(lambda _, given, __: sides.append(given[0].shape[2]))
    net(torch.zeros(1, 3, 32, 32))
    with shortcuts(net):
        net(torch.zeros(1, 3, 32, 32))
    assert sides == [32, 16]
    lenet = build_net("lenet", 10)
    with shortcuts(lenet):
        steps = str(lenet(torch.zeros(1, 1, 32, 32)).grad_fn), lenet.c5(torch.zeros(1, 16, 5, 5)).grad_fn
        backward = [str(part[0]) for part in steps[1].next_functions] + [str(steps[1])]
        assert not any("Convolution" in step for step in backward)
    assert "Convolution" in str(lenet.c5(torch.zeros(1, 16, 5, 5)).grad_fn)


def test_a_net_has_its_own_layers_back_when_the_block_fails():
    net = build_net("cifar-cnn", 10)
    chain = net.chain
    with pytest.raises(KeyError), shortcuts(net):
        raise KeyError
    assert net.chain is chain
    assert "forward" not in vars(net.conv1)
