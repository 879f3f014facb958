#!/usr/bin/env python3
"""An ear for tests: hears which sentences of a short list are in a recording, and nothing where none is.

It is Debian's pocketsphinx (libpocketsphinx.so.3, package `pocketsphinx-en-us`) with a JSGF grammar, called through
ctypes; it needs nothing else. It is not a general recogniser: it knows just the sentences that it was given.

Invariant: a text is only returned where the sound fits it. A grammar alone would force any speech into its nearest
sentence, so every senone is scored (`compallsen`): then a word's acoustic score per frame tells how far it is from
the best that any phone could have scored there, and what is too far is refused.

As a program:  ear.py --sentences FILE.json [--prefixes] [--phrases [--pause S]] WAV...   one JSON object a line and recording.
"""

import argparse
import array
import ctypes
import json
import re
import subprocess
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_size_t, c_void_p

MODEL = "/usr/share/pocketsphinx/model/en-us"
RATE_HZ = 16_000
FRAME_SAMPLES = RATE_HZ // 100
# Mean acoustic score per 10 ms frame of the whole text. espeak-ng's voices through Opus score -55..-82 on what they
# say and below -84 on what they do not say (measured with sentences of five words and more).
MIN_SCORE = -83.0
# The same of the worst word: one word that was not said at all shows here first.
MIN_WORD_SCORE = -165.0
# Sound that the text leaves unexplained, in frames: a short sentence must not stand for a long one. Sentences that were
# said leave 27 to 43; a microphone on a busy machine, whose sound has gaps and repeats, up to 76.
MAX_UNEXPLAINED_FRAMES = 100
# Wide beams: pruning loses the right path of a voice that the model was not trained for.
BEAMS = {"beam": "1e-60", "wbeam": "1e-40", "pbeam": "1e-60"}


def _library():
    ps, base = ctypes.CDLL("libpocketsphinx.so.3"), ctypes.CDLL("libsphinxbase.so.3")
    for library, name, result, arguments in (
        (base, "cmd_ln_init", c_void_p, [c_void_p, c_void_p, c_int]),
        (ps, "ps_args", c_void_p, []),
        (ps, "ps_init", c_void_p, [c_void_p]),
        (ps, "ps_set_jsgf_string", c_int, [c_void_p, c_char_p, c_char_p]),
        (ps, "ps_set_search", c_int, [c_void_p, c_char_p]),
        (ps, "ps_lookup_word", c_void_p, [c_void_p, c_char_p]),
        (ps, "ps_start_utt", c_int, [c_void_p]),
        (ps, "ps_process_raw", c_int, [c_void_p, c_char_p, c_size_t, c_int, c_int]),
        (ps, "ps_end_utt", c_int, [c_void_p]),
        (ps, "ps_get_hyp", c_char_p, [c_void_p, POINTER(c_int32)]),
        (ps, "ps_seg_iter", c_void_p, [c_void_p]),
        (ps, "ps_seg_next", c_void_p, [c_void_p]),
        (ps, "ps_seg_word", c_char_p, [c_void_p]),
        (ps, "ps_seg_frames", None, [c_void_p, POINTER(c_int), POINTER(c_int)]),
        (ps, "ps_seg_prob", c_int32, [c_void_p, POINTER(c_int32), POINTER(c_int32), POINTER(c_int32)]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return ps, base


def plain(sentence):
    """The words of a sentence as the dictionary writes them."""
    return re.sub(r"[^a-z' ]+", " ", sentence.lower()).split()


def grammar(sentences, prefixes=False):
    """One or more of the sentences; with `prefixes` each may break off after any word."""

    def rule(words):
        if not prefixes:
            return " ".join(words)
        out = ""
        for word in reversed(words[1:]):
            out = f" [ {word}{out} ]"
        return words[0] + out

    rules = " | ".join(rule(plain(s)) for s in sentences)
    return f"#JSGF V1.0;\ngrammar story;\n<sentence> = {rules};\npublic <story> = <sentence>+;\n"


class Ear:
    """Not for two threads at once."""

    def __init__(self, sentences, prefixes=False):
        self._ps, base = _library()
        options = {
            "hmm": f"{MODEL}/en-us", "dict": f"{MODEL}/cmudict-en-us.dict", "logfn": "/dev/null",
            "samprate": f"{RATE_HZ}.0", "compallsen": "yes", **BEAMS,
        }  # fmt: skip
        flat = [c_char_p(part.encode()) for key, value in options.items() for part in ("-" + key, value)]
        self._decoder = self._ps.ps_init(base.cmd_ln_init(None, self._ps.ps_args(), 1, *flat, None))
        if not self._decoder:
            raise RuntimeError("pocketsphinx did not start: is the package pocketsphinx-en-us installed?")
        unknown = {w for s in sentences for w in plain(s) if not self._ps.ps_lookup_word(self._decoder, w.encode())}
        if unknown:
            raise ValueError(f"words that are not in the dictionary: {', '.join(sorted(unknown))}")
        if self._ps.ps_set_jsgf_string(self._decoder, b"story", grammar(sentences, prefixes).encode()) != 0:
            raise RuntimeError("pocketsphinx did not take the grammar")
        self._ps.ps_set_search(self._decoder, b"story")

    def hear(self, pcm):
        """16 kHz mono 16-bit samples as bytes -> {text, score, worst, words, refused}; text "" where nothing fits."""
        pcm = b"\0\0" * (RATE_HZ // 5) + pcm + b"\0\0" * (RATE_HZ // 5)
        ps, decoder = self._ps, self._decoder
        ps.ps_start_utt(decoder)
        ps.ps_process_raw(decoder, pcm, len(pcm) // 2, 0, 1)
        ps.ps_end_utt(decoder)
        score = c_int32()
        guess = (ps.ps_get_hyp(decoder, byref(score)) or b"").decode()
        words = []
        segment = ps.ps_seg_iter(decoder) if guess else None
        while segment:
            first, last, acoustic, language, back = c_int(), c_int(), c_int32(), c_int32(), c_int32()
            ps.ps_seg_frames(segment, byref(first), byref(last))
            ps.ps_seg_prob(segment, byref(acoustic), byref(language), byref(back))
            word = ps.ps_seg_word(segment).decode()
            if word[0] not in "<([+":
                words.append((re.sub(r"\(\d+\)$", "", word), first.value, last.value, acoustic.value))
            segment = ps.ps_seg_next(segment)
        return self._judge(guess, words, pcm)

    def _judge(self, guess, words, pcm):
        if not words:
            return {"text": "", "score": 0.0, "worst": 0.0, "words": [], "refused": guess}
        frames = sum(last - first + 1 for _, first, last, _ in words)
        mean = sum(score for *_, score in words) / frames
        worst = min(score / (last - first + 1) for _, first, last, score in words)
        inside = set()
        for _, first, last, _ in words:
            inside.update(range(first, last + 1))
        loud = [i for i, level in enumerate(levels(pcm)) if level > LOUD]
        unexplained = sum(1 for i in loud if i not in inside)
        fits = mean >= MIN_SCORE and worst >= MIN_WORD_SCORE and unexplained <= MAX_UNEXPLAINED_FRAMES
        return {
            "text": guess if fits else "", "score": round(mean, 1), "worst": round(worst, 1),
            "words": [{"word": w, "start": f / 100 - 0.2, "end": (l + 1) / 100 - 0.2} for w, f, l, _ in words],
            "unexplained": unexplained, "refused": "" if fits else guess,
        }  # fmt: skip


# RMS of a 10 ms frame that counts as sound, of 32768.
LOUD = 200.0


def levels(pcm):
    """RMS of every 10 ms frame."""
    samples = array.array("h", pcm[: len(pcm) // 2 * 2])
    out = []
    for i in range(0, len(samples) - FRAME_SAMPLES + 1, FRAME_SAMPLES):
        out.append((sum(s * s for s in samples[i : i + FRAME_SAMPLES]) / FRAME_SAMPLES) ** 0.5)
    return out


def phrases(pcm, pause=0.2, floor=LOUD):
    """Splits at pauses of at least `pause` seconds: (first second, last second, pcm with 50 ms round it)."""
    out, start, quiet = [], None, 0
    loud = [level > floor for level in levels(pcm)] + [False] * int(pause * 100 + 1)
    for i, now in enumerate(loud):
        if now:
            start, quiet = (i if start is None else start), 0
        elif start is not None:
            quiet += 1
            if quiet >= pause * 100:
                end = i - quiet + 1
                a, b = max(0, start - 5) * FRAME_SAMPLES * 2, (end + 5) * FRAME_SAMPLES * 2
                out.append((start / 100, end / 100, pcm[a:b]))
                start = None
    return out


def read(path):
    """Any sound file as 16 kHz mono samples; sox does the work."""
    command = ["sox", path, "-t", "raw", "-r", str(RATE_HZ), "-c", "1", "-b", "16", "-e", "signed", "-"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", required=True, help="JSON file with a list of sentences")
    parser.add_argument("--prefixes", action="store_true", help="a sentence may break off after any word")
    parser.add_argument("--phrases", action="store_true", help="split at pauses and hear every phrase by itself")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds of silence that part two phrases")
    parser.add_argument("wav", nargs="+")
    arguments = parser.parse_args()
    with open(arguments.sentences, encoding="utf-8") as file:
        ear = Ear(json.load(file), arguments.prefixes)
    for path in arguments.wav:
        pcm = read(path)
        if arguments.phrases:
            heard = [{"start": a, "end": b, **ear.hear(part)} for a, b, part in phrases(pcm, arguments.pause)]
            print(json.dumps({"file": path, "phrases": heard}), flush=True)
        else:
            print(json.dumps({"file": path, **ear.hear(pcm)}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
