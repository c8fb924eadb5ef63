"""ONNX files as others export them, small enough to compute by hand."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import parser

HEAD = '<ir_version: 8, opset_import: ["" : {opset}]>'


def model_of(text: str, opset: int = 17) -> onnx.ModelProto:
    """A model in ONNX's own notation, without its head."""
    return parser.parse_model(HEAD.format(opset=opset) + text)


def write(folder: Path, text: str, opset: int = 17, name: str = "net.onnx") -> Path:
    """Write such a model; return its path."""
    path = folder / name
    path.write_bytes(model_of(text, opset).SerializeToString())
    return path


SUMS = """
step (float[batch, 3] x, float[2, batch, 3] h) => (float[batch, 3] y, float[2, batch, 3] h_next)
{
    h_next = Add (h, x)
    zero = Constant <value_int = 0> ()
    y = Gather <axis = 0> (h_next, zero)
}
"""
"""Sums of inputs, kept twice; the batch of the state is its axis 1."""

RATES = """
step (float[batch, samples] x, int64 sr, float[batch, 4] h)
    => (float[batch, 4] y, float[batch, 4] hn)
{
    high = Constant <value = int64 {16000}> ()
    is_high = Equal (sr, high)
    y = If (is_high) <
        then_branch = fast () => (float[batch, 4] a) { a = Add (x, h) },
        else_branch = slow () => (float[batch, 4] b) { b = Sub (h, x) }
    >
    hn = Identity (y)
}
"""
"""At 16 kHz y is the sum of inputs, at other rates its negative."""

FIXED = """
step (float[1, 3] x, float[1, 3] h) => (float[1, 3] y, float[1, 3] h_next)
{
    h_next = Add (h, x)
    y = Mul (h_next, h_next)
}
"""
"""A batch of 1, which nothing in the graph needs."""

ONE_ROW = """
step (float[1, 3] x, float[1, 3] h) => (float[1, 3] y, float[1, 3] h_next)
{
    sum = Add (h, x)
    one = Constant <value_ints = [1, 3]> ()
    h_next = Reshape (sum, one)
    y = Identity (h_next)
}
"""
"""A batch of 1, which the graph has as a number."""

MATES = """
step (float[batch, 3] x, float[batch, 3] h) => (float[batch, 3] y, float[batch, 3] h_next)
{
    h_next = Add (h, x)
    mean = ReduceMean <axes = [0], keepdims = 1> (h_next)
    y = Sub (h_next, mean)
}
"""
"""What a row gets depends on the others."""

GROWS = """
step (float[batch, 3] x, float[batch, past, 3] cache)
    => (float[batch, 3] y, float[batch, more, 3] cache_next)
{
    one = Constant <value_ints = [1]> ()
    new = Unsqueeze (x, one)
    cache_next = Concat <axis = 1> (cache, new)
    y = ReduceSum <keepdims = 0> (cache_next, one)
}
"""
"""A cache that gets longer with each step."""

TYPES = """
step (float16[b, 2] a, int64[b] i, int32[b, 1] j, bool[b, 3] on,
      float16[b, 2] a_state, int64[b] i_state, int32[b, 1] j_state, bool[b, 3] on_state)
    => (float16[b, 2] a_sum, int64[b] i_sum, int32[b, 1] j_sum, bool[b, 3] on_any,
        float16[b, 2] a_state_out, int64[b] i_state_out, int32[b, 1] j_state_out,
        bool[b, 3] on_state_out)
{
    a_sum = Add (a, a_state)
    i_sum = Add (i, i_state)
    j_sum = Add (j, j_state)
    on_any = Or (on, on_state)
    a_state_out = Identity (a_sum)
    i_state_out = Identity (i_sum)
    j_state_out = Identity (j_sum)
    on_state_out = Identity (on_any)
}
"""
"""A sum of each type."""

SPEAKER = """
step (float[batch, frames, 2] x, float[batch, 2] dvec, float[batch, 2] h)
    => (float[batch, frames, 2] y, float[batch, frames, 1] loud, float[batch, 2] hN)
{
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    total = ReduceSum <keepdims = 0> (x, one)
    hN = Add (h, total)
    who = Unsqueeze (dvec, one)
    kept = Unsqueeze (hN, one)
    scaled = Mul (x, who)
    y = Add (scaled, kept)
    loud = ReduceSum <keepdims = 1> (y, two)
}
"""
"""Frames of a speaker, whose vector is the same in all steps."""

LAYERS = """
step (float[1, 1, 3] x, float[1, 1, 3] h) => (float[1, 1, 3] y, float[1, 1, 3] h_next)
{
    h_next = Add (h, x)
    zero = Constant <value_int = 0> ()
    y = CumSum (h_next, zero)
}
"""
"""Sums of inputs, added up along the first axis: the batch can only be the second."""

LOOSE = """
step (float[3] x, float[2, 3] h) => (float[3] y, float[2, 3] h_next)
{
    h_next = Add (h, x)
    zero = Constant <value_int = 0> ()
    y = Gather <axis = 0> (h_next, zero)
}
"""
"""No axis of a batch at all."""

HEARS = """
step (float[batch, 5] x, float[batch, 1] h) => (float[batch, 5] y, float[batch, 1] h_next)
{
    one = Constant <value_ints = [1]> ()
    sum = ReduceSum <keepdims = 1> (x, one)
    h_next = Add (h, sum)
    y = Add (x, h_next)
}
"""
"""Takes five values, of which the first two may be those of the step before."""
