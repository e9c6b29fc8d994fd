"""Network in network: Lin, Chen & Yan 2013, arXiv:1312.4400.

Each block is a convolution and two 1x1 convolutions: at every place a small dense net over the channels (a weighted sum over
depth). The last 1x1 layer has one map a class, and the mean of a map is the class's logit: no dense layer at all.

| block | CIFAR-10 (the paper's) | output | ImageNet (the authors' published one) | output |
|---|---|---|---|---|
| 1 | 5x5 padding 2: 192, 1x1: 160, 96 | 32x32x96 | 11x11 stride 4: 96, 1x1: 96, 96 | 54x54x96 |
| pool | max 3 stride 2, dropout 0.5 | 16x16x96 | max 3 stride 2 | 27x27x96 (26x26 rounded up) |
| 2 | 5x5 padding 2: 192, 1x1: 192, 192 | 16x16x192 | 5x5 padding 2: 256, 1x1: 256, 256 | 26x26x256 |
| pool | average 3 stride 2, dropout 0.5 | 8x8x192 | max 3 stride 2 | 13x13x256 |
| 3 | 3x3 padding 1: 192, 1x1: 192, 10 | 8x8x10 | 3x3 padding 1: 384, 1x1: 384, 384 | 13x13x384 |
| pool | | | max 3 stride 2, dropout 0.5 | 6x6x384 |
| 4 | | | 3x3 padding 1: 1024, 1x1: 1024, 1000 | 6x6x1000 |
| mean of each map | | 10 | | 1000 |
"""
