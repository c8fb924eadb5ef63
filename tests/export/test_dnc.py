"""The Differentiable Neural Computer does what its paper says, equation for equation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from export import dnc_addressing, to_onnx
from export.architectures import build
from export.architectures.dnc import Dnc
from export.network import Network, Sizes
from service.models import runtime
from service.spec import Float32
from tests.conftest import Clock
from tests.export.conftest import Exported, tiny
from tests.support import driving
from tests.support.served import served

Values = npt.NDArray[np.float64]

SIZES = Sizes(5, 3, 8, 1, 2, 1, 4)
"""Five inputs, three outputs, eight cells in one layer, two read heads, a memory of width four."""


class Paper:
    """
    One sequence by the equations of Graves et al. 2016 (Nature 538, Methods), in loops over
    locations and in double precision. Names are the paper's.

    Usages are put in order as the code says, in steps of 1 / 1,024 and then by location; the paper
    leaves open what to do with equal ones.
    """

    def __init__(self, network: Dnc, locations: int) -> None:
        self.p = {name: each.detach().double().numpy() for name, each in network.named_parameters()}
        self.R, self.W, self.N = network.reads, network.width, locations
        self.M = np.full((self.N, self.W), np.float64(np.float32(1e-6)))
        self.w_r = np.zeros((self.R, self.N))
        self.w_w, self.u, self.precedence = np.zeros(self.N), np.zeros(self.N), np.zeros(self.N)
        self.L = np.zeros((self.N, self.N))
        self.r = np.zeros((self.R, self.W))
        self.h = self.p["controller.initial_hidden"][0]
        self.s = self.p["controller.initial_cell"][0]

    def step(self, x: Values) -> dict[str, Values]:
        xi = self.interface(x)
        self.u = self.usage(xi["f"])
        a = self.allocation(self.u)
        c_w = self.content(xi["k_w"], xi["beta_w"])
        self.w_w = xi["g_w"] * (xi["g_a"] * a + (1 - xi["g_a"]) * c_w)
        for i in range(self.N):
            for j in range(self.W):
                self.M[i, j] = self.M[i, j] * (1 - self.w_w[i] * xi["e"][j]) + (
                    self.w_w[i] * xi["v"][j]
                )
        self.link()
        self.precedence = (1 - self.w_w.sum()) * self.precedence + self.w_w
        before = self.w_r.copy()
        for head in range(self.R):
            forward = self.L @ before[head]
            backward = self.L.T @ before[head]
            c_r = self.content(xi["k_r"][head], xi["beta_r"][head])
            pi = xi["pi"][head]
            self.w_r[head] = pi[0] * backward + pi[1] * c_r + pi[2] * forward
            self.r[head] = self.M.T @ self.w_r[head]
        features = np.concatenate([self.h, self.r.ravel()])
        y = features @ self.p["output.weight"] + self.p["output.bias"]
        return {"y": y, "allocation": a}

    def interface(self, x: Values) -> dict[str, Any]:
        chi = np.concatenate([x, self.r.ravel(), self.h])
        gates = chi @ self.p["controller.layers.0.gates.weight"]
        gates = gates + self.p["controller.layers.0.gates.bias"]
        i, f, o, candidate = np.split(gates, 4)
        self.s = sigmoid(f) * self.s + sigmoid(i) * np.tanh(candidate)
        self.h = sigmoid(o) * np.tanh(self.s)
        xi = self.h @ self.p["interface.layer.weight"] + self.p["interface.layer.bias"]
        heads, width = self.R, self.W
        ends = np.cumsum([heads * width, width, heads, 1, width, width, heads, 1, 1])
        k_r, k_w, beta_r, beta_w, e, v, f, g_a, g_w, pi = np.split(xi, ends)
        odds = np.exp(pi.reshape(heads, 3))
        return {
            "k_r": k_r.reshape(heads, width),
            "k_w": k_w,
            "beta_r": oneplus(beta_r),
            "beta_w": oneplus(beta_w)[0],
            "e": sigmoid(e),
            "v": v,
            "f": sigmoid(f),
            "g_a": sigmoid(g_a)[0],
            "g_w": sigmoid(g_w)[0],
            "pi": odds / odds.sum(1, keepdims=True),
        }

    def content(self, key: Values, beta: float) -> Values:
        """C(M, k, beta): a softmax of cosines."""
        cosines = [
            key @ row / (np.sqrt(key @ key + 1e-6) * np.sqrt(row @ row + 1e-6)) for row in self.M
        ]
        odds = np.exp(beta * np.array(cosines))
        weighting: Values = odds / odds.sum()
        return weighting

    def usage(self, f: Values) -> Values:
        psi = np.ones(self.N)
        for head in range(self.R):
            psi = psi * (1 - f[head] * self.w_r[head])
        usage: Values = (self.u + self.w_w - self.u * self.w_w) * psi
        return usage

    def allocation(self, u: Values) -> Values:
        phi = sorted(range(self.N), key=lambda i: (np.round(u[i] * 1024), i))
        a = np.zeros(self.N)
        for j in range(self.N):
            a[phi[j]] = (1 - u[phi[j]]) * np.prod([u[phi[i]] for i in range(j)])
        return a

    def link(self) -> None:
        w = self.w_w
        for i in range(self.N):
            for j in range(self.N):
                self.L[i, j] = (1 - w[i] - w[j]) * self.L[i, j] + w[i] * self.precedence[j]
            self.L[i, i] = 0


def sigmoid(x: Values) -> Values:
    value: Values = 1 / (1 + np.exp(-x))
    return value


def oneplus(x: Values) -> Values:
    value: Values = 1 + np.log(1 + np.exp(x))
    return value


def network_of(spread: float) -> Dnc:
    """A network far from where training starts, so that heads are neither all alike nor idle."""
    network = build("dnc", SIZES, seed=3)
    assert isinstance(network, Dnc)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=spread)
    return network


@pytest.mark.parametrize("locations", [1, 2, 7, 20])
@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_every_step_is_the_papers(locations: int, spread: float) -> None:
    """Thirty steps agree in output, allocation and the whole state, also when memory is full."""
    network = network_of(spread).double()
    paper = Paper(network, locations)
    state = network.initial_state(1, locations)
    inputs = np.random.default_rng(5).integers(0, 2, (30, 5)).astype(float)
    for x in inputs:
        expected = paper.step(x)
        with torch.no_grad():
            logits, state, trace = network(torch.from_numpy(x)[None], state)
        assert isinstance(trace.allocation, torch.Tensor)
        found = {
            "y": (logits[0], expected["y"]),
            "allocation": (trace.allocation[0, 0], expected["allocation"]),
            "memory": (state.memory[0].T, paper.M),
            "weighting": (state.weighting[0], np.vstack([paper.w_r, paper.w_w])),
            "usage": (state.usage[0, 0], paper.u),
            "precedence": (state.precedence[0, 0], paper.precedence),
            "link": (state.link[0], paper.L),
            "read_vector": (state.read_vector[0], paper.r),
        }
        for name, (here, there) in found.items():
            np.testing.assert_allclose(here.numpy(), there, rtol=0, atol=1e-8, err_msg=name)


def sorted_allocation(usage: Values) -> Values:
    """The paper's allocation, by a sort."""
    order = np.argsort(usage, kind="stable")
    ordered = usage[order]
    before = np.concatenate([[1.0], np.cumprod(ordered)[:-1]])
    allocation = np.empty_like(usage)
    allocation[order] = (1 - ordered) * before
    return allocation


@pytest.mark.parametrize("locations", [1, 2, 31, 128])
def test_allocation_is_that_of_a_sort(locations: int) -> None:
    """Without a sort, usages that differ give what the paper's sort and products give."""
    steps = np.random.default_rng(locations).permutation(1024)[:locations]
    usage = steps / 1024
    found = dnc_addressing.allocation(torch.from_numpy(usage)[None, None])

    np.testing.assert_allclose(found[0, 0].numpy(), sorted_allocation(usage), rtol=0, atol=1e-11)


def test_of_equally_unused_locations_the_first_is_allocated() -> None:
    """Roundings do not choose between locations, in float32 up to the most that a session has."""
    usage = 1e-4 + torch.rand((1, 1, 300), generator=torch.Generator().manual_seed(2)) * 1e-4
    usage[0, 0, :40] = 1

    assert dnc_addressing.allocation(usage)[0, 0].argmax() == 40
    most = torch.tensor([1023 / 1024, 1022 / 1024], dtype=torch.float32)
    ranks = torch.round(most * dnc_addressing.USAGE_STEPS) * 16_384 + torch.tensor([0.0, 16_383.0])
    assert ranks.tolist() == [1023 * 16_384, 1022 * 16_384 + 16_383]


def test_allocation_passes_a_gradient_to_every_usage() -> None:
    """Its gradient is that of the products, with the order held fast."""
    usage = torch.tensor([[[0.25, 0.75, 0.5]]], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    (dnc_addressing.allocation(usage)[0, 0] * weights).sum().backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    a, b, c = 0.25, 0.75, 0.5  # 1 (1 - a) + 3 (1 - c) a + 2 (1 - b) a c
    assert usage.grad is not None
    np.testing.assert_allclose(
        usage.grad[0, 0].numpy(),
        [-1 + 3 * (1 - c) + 2 * (1 - b) * c, -2 * a * c, -3 * a + 2 * (1 - b) * a],
        atol=1e-12,
    )


def test_links_lead_from_write_to_write() -> None:
    """After writes to 2, 0, 3, the links read the order forwards and backwards, and none is own."""
    link, precedence = torch.zeros(1, 4, 4), torch.zeros(1, 1, 4)
    for place in (2, 0, 3):
        write = torch.zeros(1, 1, 4)
        write[0, 0, place] = 1
        link = dnc_addressing.link_after(link, precedence, write)
        precedence = dnc_addressing.precedence_after(precedence, write)
    expected = np.zeros((4, 4))
    expected[0, 2] = expected[3, 0] = 1
    np.testing.assert_array_equal(link[0].numpy(), expected)

    content = torch.full((1, 1, 4), 0.25)
    read = torch.zeros(1, 1, 4)
    read[0, 0, 0] = 1
    for mode, place in (((1.0, 0, 0), 2), ((0, 0, 1.0), 3)):
        found = dnc_addressing.read_weighting(read, link, content, torch.tensor([[mode]]))
        assert found[0, 0].argmax() == place
        assert found[0, 0].max() == 1


def test_a_long_sequence_leaves_no_denormal_numbers_in_the_memory() -> None:
    """On processors that are slow with denormal numbers, a link matrix must not fill with them."""
    network = network_of(16.0)
    state = network.initial_state(2, 24)
    generator = torch.Generator().manual_seed(4)
    least = torch.finfo(torch.float32).tiny
    with torch.no_grad():
        for _ in range(400):
            x = torch.randint(0, 2, (2, 5), generator=generator).float()
            _, state, trace = network(x, state)
            for value in (*state[:6], *trace):  # without the controller's
                assert not ((value != 0) & (value.abs() < least)).any()


@pytest.fixture(scope="module")
def dnc() -> Exported:
    """A DNC with two layers, two read heads, and parameters far from where training starts."""
    configuration = tiny("dnc")
    network = build("dnc", configuration.sizes, seed=5)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.5)
    model = to_onnx.convert(network, to_onnx.spec_of(network, configuration))
    return Exported(configuration, network, model)


def inputs_of(seed: int, steps: int) -> Float32:
    """Random vectors."""
    return np.random.default_rng(seed).integers(0, 2, (steps, 9)).astype(np.float32)


def in_pytorch(network: Network, inputs: Float32, locations: int) -> Float32:
    """The outputs of one sequence, step by step."""
    outputs = []
    with torch.no_grad():
        state = network.initial_state(1, locations)
        for x in inputs:
            logits, state, _ = network(torch.from_numpy(x)[None], state)
            outputs.append(torch.sigmoid(logits)[0].numpy())
    return np.stack(outputs)


def test_a_server_steps_it_as_pytorch_does(dnc: Exported, tmp_path: Path) -> None:
    """
    Sessions of several memory sizes at once, a fork and a restored checkpoint continue alike, and
    clients get every trace.
    """
    (tmp_path / "dnc").mkdir()
    (tmp_path / "dnc" / "model.onnx").write_bytes(dnc.content)
    sizes = (3, 17, 24, 130)
    inputs = {locations: inputs_of(locations, 12) for locations in sizes}
    with served(tmp_path) as client:
        sessions = {each: client.create_session("dnc", locations=each) for each in sizes}
        found = {each: [sessions[each].step(inputs[each][:7]).array] for each in sizes}
        fork = sessions[17].fork()
        restored = client.create_session("dnc", checkpoint=sessions[17].checkpoint())
        for each in sizes:
            result = sessions[each].step(
                inputs[each][7:], traces=[trace.name for trace in sessions[each].model.traces]
            )
            found[each].append(result.array)
            assert result.traces["usage"].shape == (5, 1, each)
            assert result.traces["allocation"].shape == (5, 1, each)
            assert result.traces["read_mode"].shape == (5, 2, 3)
            assert result.traces["free_gate"].shape == (5, 2, 1)
        expected = {each: in_pytorch(dnc.network, inputs[each], each) for each in sizes}
        for each in sizes:
            np.testing.assert_allclose(np.concatenate(found[each]), expected[each], atol=1e-5)
        for other in (fork, restored):
            assert other.step(inputs[17][7:]).array.tobytes() == found[17][1].tobytes()
        assert sessions[130].read_memory().memory.shape == (130, 6)


def test_its_results_do_not_depend_on_batch_mates(dnc: Exported) -> None:
    """Sessions of unlike lengths and memory sizes, odd ones too, each get the bits of one alone."""
    network = runtime.Network(dnc.content, "cpu")

    def alone(inputs: Float32, locations: int) -> bytes:
        engine = driving.engine(network, Clock())
        work = driving.chunk(driving.opened(engine, locations), inputs)
        driving.stepped(engine, work)
        return np.asarray(work.outcome.outputs).tobytes()

    engine = driving.engine(network, Clock())
    plans = [((16, 17, 31, 18, 3)[n % 5], inputs_of(n, 20 + n % 8)) for n in range(40)]
    works = [driving.chunk(driving.opened(engine, size), inputs) for size, inputs in plans]
    driving.stepped(engine, *works)
    for work, (size, inputs) in zip(works, plans, strict=True):
        assert work.outcome.outputs.tobytes() == alone(inputs, size), size


def test_the_slab_bears_a_matrix_of_locations(dnc: Exported) -> None:
    """A session's state counts N x N elements for the links, and the spec says which axes grow."""
    network = runtime.Network(dnc.content, "cpu")
    link = next(tensor for tensor in network.spec.state if tensor.name == "link")

    assert link.shape == ("N", "N")
    more = network.spec.state_bytes(65) - network.spec.state_bytes(64)
    assert more == 4 * (65**2 - 64**2 + 6 + 3 + 1 + 1)  # memory, weightings, usage, precedence
