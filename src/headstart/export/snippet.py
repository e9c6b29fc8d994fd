"""The few lines that use an exported model without headstart: numpy, Pillow and one runtime are enough."""

_OPEN = {
    "onnx": """import json, sys
import numpy as np, onnxruntime
from PIL import Image, ImageOps

net = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
about = json.loads(net.get_modelmeta().custom_metadata_map["headstart"])
run = lambda photos: net.run(["probabilities"], {"image": photos})[0]
""",
    "openvino": """import json, sys
import numpy as np, openvino
from PIL import Image, ImageOps

core = openvino.Core()
model = core.read_model("model.xml")
about = json.loads(model.get_rt_info(["headstart", "about"]).astype(str))
net = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
run = lambda photos: net({"image": photos})["probabilities"]
""",
}

_USE = """prepare = about["preprocessing"]

def square(path):
    image = Image.open(path)
    width, height = image.size
    fold = 1 << (max(1, min(image.size) // prepare["shortest_side"]).bit_length() - 1)
    image.draft(image.mode, (width // min(fold, 8), height // min(fold, 8)))  # JPEG: smaller while it is decoded
    fold_rest = fold // round(width / image.width)
    if image.has_transparency_data:
        image.load()
        white = Image.new("RGB", image.size, "white")
        white.paste(image.convert("RGBA"), mask=image.convert("RGBA"))
        white.info, image = image.info, white
    image = image.convert("RGB").reduce(fold_rest)  # blocks of pixels become their mean
    if image.getexif().get(274, 1) >= 5:
        width, height = height, width
    image = ImageOps.exif_transpose(image).convert("L" if prepare["channels"] == 1 else "RGB")
    side = min(width, height) * prepare["crop_fraction"]
    left, top = (width - side) / 2, (height - side) / 2
    box = [edge / fold for edge in (left, top, left + side, top + side)]
    size = prepare["size"]
    image = image.resize((size, size), Image.Resampling[prepare["filter"].upper()], box)
    return np.asarray(image).reshape(size, size, prepare["channels"])

for path in sys.argv[1:]:
    probabilities = run(square(path)[None])[0].tolist()
    print(json.dumps({"path": path, "probabilities": dict(zip(about["classes"], probabilities))}))
"""


def snippet(to: str) -> str:
    """A whole program: `python use.py photo.jpg ...` in the folder of the model prints a JSON line a photo.

    Args:
        to: a key of `headstart.export.formats.FORMATS`.
    """
    return _OPEN[to] + _USE
