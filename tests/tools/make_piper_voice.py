#!/usr/bin/env python3
"""Makes a voice with the inputs and outputs of a Piper voice, without any download, for tests.

  make_piper_voice.py OUT.onnx [--multi]      writes OUT.onnx (1 KB) and OUT.onnx.json; --multi has two speakers

There are no weights in it: each phoneme becomes 1024 samples (at length scale 1) of a tone of 150 Hz plus 25 Hz times
its id modulo 20; padding, begin, end and space are silent. The second speaker is a fifth higher. Needs numpy and onnx.
"""
import json
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RATE = 22050
SAMPLES_PER_PHONEME = 1024
PHONEMES = (
    "_^$ !'(),-.:;?abcdefghijklmnopqrstuvwxyzæçðøħŋœǀɐɑɒɓɔɕɖɗɘəɚɛɜɞɟɠɡɢɣɤɥɦɧɨɪɫɬɭɮɯɰɱɲɳɴɵɶɸɹɺɻɽɾʀʁʂʃʄʈʉʊʋʌʍʎʏʐʑʒʔʕʘʙʛʜʝʟʡʢˈˌːˑ˞βθχᵻ"
)


def build(multi):
    constants = {
        "hop": np.float32(SAMPLES_PER_PHONEME),
        "one": np.int64(1),
        "zero": np.int64(0),
        "silence": np.float32(0),
        "hz_per_id": np.float32(25.0),
        "hz_lowest": np.float32(150.0),
        "radians": np.float32(2 * np.pi / RATE),
        "loudness": np.float32(0.3),
        "from_1": np.array([1], np.int64),
        "to_2": np.array([2], np.int64),
        "axis_0": np.array([0], np.int64),
        "axis_1": np.array([1], np.int64),
        "out_shape": np.array([1, 1, 1, -1], np.int64),
        "last_silent": np.int64(3),
        "flat": np.array([-1], np.int64),
        "ids_in_scale": np.int64(20),
        "fifth": np.float32(0.5),
        "unit": np.float32(1),
    }
    nodes = []

    def add(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], **attributes))

    # The samples of one phoneme: `scales` is noise, length, noise of the width.
    add("Slice", ["scales", "from_1", "to_2", "axis_0"], "length_1")
    add("Squeeze", ["length_1", "axis_0"], "length")
    add("Mul", ["hop", "length"], "hop_scaled")
    add("Cast", ["hop_scaled"], "hop_whole", to=TensorProto.INT64)
    add("Max", ["hop_whole", "one"], "samples")
    add("Range", ["zero", "samples", "one"], "time_whole")
    add("Cast", ["time_whole"], "time", to=TensorProto.FLOAT)
    # The tone of each phoneme.
    add("Reshape", ["input", "flat"], "ids")
    add("Mod", ["ids", "ids_in_scale"], "step_whole")
    add("Cast", ["step_whole"], "step", to=TensorProto.FLOAT)
    add("Mul", ["step", "hz_per_id"], "hz_above")
    add("Add", ["hz_above", "hz_lowest"], "hz_first")
    if multi:
        add("Squeeze", ["sid", "axis_0"], "speaker_whole")
        add("Cast", ["speaker_whole"], "speaker", to=TensorProto.FLOAT)
        add("Mul", ["speaker", "fifth"], "speaker_part")
        add("Add", ["speaker_part", "unit"], "speaker_factor")
        add("Mul", ["hz_first", "speaker_factor"], "hz")
    else:
        add("Identity", ["hz_first"], "hz")
    add("Greater", ["ids", "last_silent"], "voiced")
    add("Where", ["voiced", "loudness", "silence"], "level")
    add("Unsqueeze", ["hz", "axis_1"], "hz_column")
    add("Unsqueeze", ["level", "axis_1"], "level_column")
    add("Mul", ["time", "radians"], "angle_per_hz")
    add("Mul", ["hz_column", "angle_per_hz"], "angle")
    add("Sin", ["angle"], "tone")
    add("Mul", ["tone", "level_column"], "audio")
    add("Reshape", ["audio", "out_shape"], "output")

    inputs = [
        helper.make_tensor_value_info("input", TensorProto.INT64, [1, "phonemes"]),
        helper.make_tensor_value_info("input_lengths", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("scales", TensorProto.FLOAT, [3]),
    ]
    if multi:
        inputs.append(helper.make_tensor_value_info("sid", TensorProto.INT64, [1]))
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 1, "time"])
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tone-voice", inputs, [output], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    out, multi = sys.argv[1], "--multi" in sys.argv[2:]
    onnx.save(build(multi), out)
    config = {
        "audio": {"sample_rate": RATE, "quality": "test"},
        "espeak": {"voice": "en-us"},
        "inference": {"noise_scale": 0.667, "length_scale": 1.0, "noise_w": 0.8},
        "phoneme_type": "espeak",
        "phoneme_map": {},
        "phoneme_id_map": {phoneme: [i] for i, phoneme in enumerate(PHONEMES)},
        "num_symbols": 256,
        "num_speakers": 2 if multi else 1,
        "speaker_id_map": {"low": 0, "high": 1} if multi else {},
    }
    with open(out + ".json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    print(out, os.path.getsize(out), "bytes")


if __name__ == "__main__":
    main()
