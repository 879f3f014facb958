#!/usr/bin/env python3
"""Makes a whisper model in ggml format without any download, for tests.

  make_whisper_model.py OUT.bin --text "hello world"      rigged: "hears" exactly this text in any audio; 2-4 MB
  make_whisper_model.py OUT.bin --dims tiny.en            true size, random weights: for timing

How the rig works: all transformer blocks give zero, so that the logits depend on the position alone, and the
positional embedding of each position points at the token that is wanted there. The text comes with probability 1 and
with times. Needs numpy.
"""
import argparse
import os
import struct

import numpy as np

# name: (vocabulary, width, heads, layers)
SIZES = {
    "tiny.en": (51864, 384, 6, 4),
    "tiny": (51865, 384, 6, 4),
    "base.en": (51864, 512, 8, 6),
    "base": (51865, 512, 8, 6),
    "small.en": (51864, 768, 12, 12),
}
TEXT_CONTEXT = 448
MELS = 80
# whisper.cpp looks these up and aborts without them.
NEEDED_TOKENS = [b" ", b" -", b" '"]
FIRST_WORD = 256


def mel_filters(rate=16000, fft=400):
    """Slaney's mel filter bank."""
    to_mel = lambda hz: np.where(hz < 1000, hz / (200 / 3), 15 + np.log(np.maximum(hz, 1e-9) / 1000) / (np.log(6.4) / 27))
    to_hz = lambda mel: np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((np.log(6.4) / 27) * (mel - 15)))
    points = to_hz(np.linspace(to_mel(np.array(0.0)), to_mel(np.array(rate / 2.0)), MELS + 2))
    ramps = points[:, None] - np.linspace(0, rate / 2, fft // 2 + 1)[None]
    widths = np.diff(points)
    weights = np.maximum(0, np.minimum(-ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]))
    return (weights * (2 / (points[2:] - points[:-2]))[:, None]).astype("<f4")


def sinusoids(length, width):
    step = np.exp(-np.log(10000) / (width // 2 - 1) * np.arange(width // 2))
    angles = np.arange(length)[:, None] * step[None]
    return np.concatenate([np.sin(angles), np.cos(angles)], 1)


class Model:
    def __init__(self, out, args):
        self.out = out
        self.rng = np.random.default_rng(args.seed)
        self.rigged = args.dims is None
        sizes = SIZES[args.dims] if args.dims else (51864, args.state, args.head, args.layers)
        self.vocabulary, self.width, self.heads, self.layers = sizes
        self.audio_context = args.ctx
        self.words = args.text.split()
        self.end = args.end

    def write(self):
        width, layers = self.width, self.layers
        header = (0x67676D6C, self.vocabulary, self.audio_context, width, self.heads, layers)
        self.out.write(struct.pack("<12i", *header, TEXT_CONTEXT, width, self.heads, layers, MELS, 1))
        filters = mel_filters()
        self.out.write(struct.pack("<2i", *filters.shape) + filters.tobytes())
        tokens = [b"<%d>" % i for i in range(FIRST_WORD)] + [(" " + w).encode() for w in self.words] + NEEDED_TOKENS
        self.out.write(struct.pack("<i", len(tokens)))
        for token in tokens:
            self.out.write(struct.pack("<I", len(token)) + token)
        self.encoder_head()
        self.decoder_head()
        for side in ("encoder", "decoder"):
            for layer in range(layers):
                self.block(side, f"{side}.blocks.{layer}")

    def put(self, name, array, half=False):
        array = np.ascontiguousarray(array, dtype="<f2" if half else "<f4")
        name = name.encode()
        self.out.write(struct.pack("<3i", array.ndim, len(name), 1 if half else 0))
        self.out.write(struct.pack("<%di" % array.ndim, *array.shape[::-1]) + name + array.tobytes())

    def random(self, *shape):
        return self.rng.standard_normal(shape, dtype="f4") / np.sqrt(np.prod(shape[1:]))

    def weight(self, *shape):
        return np.zeros(shape) if self.rigged else self.random(*shape)

    def norm(self, name):
        self.put(name + ".weight", np.ones(self.width))
        self.put(name + ".bias", np.zeros(self.width))

    def encoder_head(self):
        width = self.width
        self.put("encoder.positional_embedding", sinusoids(self.audio_context, width))
        self.put("encoder.conv1.weight", self.random(width, MELS, 3), True)
        self.put("encoder.conv1.bias", np.zeros((width, 1)))
        self.put("encoder.conv2.weight", self.random(width, width, 3), True)
        self.put("encoder.conv2.bias", np.zeros((width, 1)))
        self.norm("encoder.ln_post")

    def decoder_head(self):
        scale = 1.0 if self.rigged else 0.02
        tokens = self.rng.standard_normal((self.vocabulary, self.width), dtype="f4") * scale
        positions = self.rng.standard_normal((TEXT_CONTEXT, self.width), dtype="f4") * 0.01
        if self.rigged:
            tokens, positions = self.rig()
        self.put("decoder.positional_embedding", positions)
        self.put("decoder.token_embedding.weight", tokens, True)
        self.norm("decoder.ln")

    def rig(self):
        """Token vectors of +-1 with zero mean, which the norm leaves alone; each position is the wanted token's."""
        end_of_text, begin = (50256, 50363) if self.vocabulary == 51864 else (50257, 50364)
        half = self.width // 2
        code = np.array([1] * half + [-1] * (self.width - half), "f4")
        tokens = self.rng.permuted(np.tile(code, (self.vocabulary, 1)), axis=1) * 0.35
        last = 1 + len(self.words)
        wanted = {0: begin, last: begin + int(self.end * 50)}
        wanted.update({1 + i: FIRST_WORD + i for i in range(len(self.words))})
        for position in range(TEXT_CONTEXT):
            tokens[wanted.get(position, end_of_text)] = code[self.rng.permutation(self.width)]
        positions = np.stack([8 * tokens[wanted.get(p, end_of_text)] for p in range(TEXT_CONTEXT)])
        # At the end the timestamp wins by a little, so that the end of text comes next.
        positions[last] += 7.5 * tokens[end_of_text]
        return tokens, positions

    def block(self, side, name):
        width = self.width
        for kind in ("attn", "cross_attn") if side == "decoder" else ("attn",):
            self.norm(f"{name}.{kind}_ln")
            for part in ("query", "key", "value", "out"):
                self.put(f"{name}.{kind}.{part}.weight", self.weight(width, width), True)
                if part != "key":
                    self.put(f"{name}.{kind}.{part}.bias", np.zeros(width))
        self.norm(f"{name}.mlp_ln")
        self.put(f"{name}.mlp.0.weight", self.weight(4 * width, width), True)
        self.put(f"{name}.mlp.0.bias", np.zeros(4 * width))
        self.put(f"{name}.mlp.2.weight", self.weight(width, 4 * width), True)
        self.put(f"{name}.mlp.2.bias", np.zeros(width))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--text", default="hello world this is a test")
    parser.add_argument("--dims", choices=SIZES)
    parser.add_argument("--state", type=int, default=32, help="width of the rigged model")
    parser.add_argument("--head", type=int, default=2)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--ctx", type=int, default=1500, help="encoder positions")
    parser.add_argument("--end", type=float, default=2.0, help="time at which the text ends, s")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with open(args.out, "wb") as out:
        Model(out, args).write()
    print(args.out, os.path.getsize(args.out), "bytes")


if __name__ == "__main__":
    main()
