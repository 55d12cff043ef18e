"""What the compiler would launch on a GPU for a step, counted without one.

The step is traced on the CPU, where nothing may break its graph. Every tensor of the graphs is then said to lie on a
GPU of compute capability 9.0, and inductor writes its code for them, which is counted and not run: kernels of Triton,
calls of libraries, bytes that they read and write.
"""

from __future__ import annotations

import contextlib
import copy
import re
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from functorch.compile import make_boxed_func
from torch import Tensor, fx
from torch._dynamo import device_interface
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._guards import TracingContext, tracing
from torch._inductor import compile_fx, graph
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.runtime import hints
from torch._inductor.scheduler import BaseSchedulerNode
from torch._inductor.utils import BoxedBool
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode

from lth.training.step import Step

GPU = types.SimpleNamespace(
    name="sm_90",
    major=9,
    minor=0,
    multi_processor_count=132,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
    total_memory=80 * 2**30,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472,
    L2_cache_size=50 * 2**20,
    gcnArchName="",
    is_integrated=0,
    is_multi_gpu_board=0,
)
Graphs = list[tuple[str, fx.GraphModule, list[Any]]]


class Written(Exception):
    """The code is there, and nobody wants it run."""


def count(step: Step) -> dict[str, int]:
    """Of a step on a CPU, as on a GPU: `triton` kernels, `library` calls, `bytes` moved."""
    total = {"triton": 0, "library": 0, "bytes": 0}
    graphs = traced(step)
    with device():
        for kind, module, inputs in graphs:
            code, size = written(kind, module, inputs)
            body = code[code.index("def call(") :]
            total["triton"] += len(re.findall(r"triton_\w+\.run\(", body))
            total["library"] += len(re.findall(r"(?:extern_kernels|torch\.ops|aten)\.[\w.]+\(", body))
            total["bytes"] += size
    return total


def traced(step: Step) -> Graphs:
    """Forward pass, backward pass and update of a step, each as one graph; an error where a graph breaks."""
    graphs: Graphs = []

    def keep(kind: str) -> Callable:
        def compiler(module: fx.GraphModule, inputs: list[Any]) -> Callable:
            graphs.append((kind, module, inputs))
            outputs = next(node for node in module.graph.nodes if node.op == "output").args[0]
            values = [out.meta["val"] if isinstance(out, fx.Node) else out for out in outputs]
            like = lambda v: torch.empty_strided(v.shape, v.stride(), dtype=v.dtype) if isinstance(v, Tensor) else v  # noqa: E731
            return make_boxed_func(lambda *args: [like(value) for value in values])  # nothing is computed

        return compiler

    backend = aot_autograd(
        fw_compiler=keep("forward"),
        bw_compiler=keep("backward"),
        inference_compiler=keep("update"),
        decompositions=select_decomp_table(),
        partition_fn=min_cut_rematerialization_partition,
        keep_inference_input_mutations=True,
    )
    whole = {"backend": backend, "fullgraph": True, "dynamic": False}
    loss, accuracy = torch.compile(step._objective, **whole)()
    grads = torch.autograd.grad(loss, step.variables, step.ones)
    torch.compile(step._update, **whole)(grads, loss.detach(), accuracy)
    return graphs


def written(kind: str, module: fx.GraphModule, inputs: list[Any]) -> tuple[str, int]:
    """Inductor's code for a graph whose tensors are said to be on a GPU, and the bytes that it moves."""
    module, cuda = copy.deepcopy(module), torch.device("cuda", 0)
    for node in module.graph.nodes:
        node.args = fx.node.map_aggregate(node.args, lambda a: cuda if isinstance(a, torch.device) else a)
        node.kwargs = fx.node.map_aggregate(node.kwargs, lambda a: cuda if isinstance(a, torch.device) else a)
        node.meta = {k: v for k, v in node.meta.items() if k not in ("val", "tensor_meta", "example_value")}
    mode, found = FakeTensorMode(allow_non_fake_inputs=True), []
    fake = lambda t: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=cuda)  # noqa: E731
    with mode:
        fakes = [fake(t) if isinstance(t, Tensor) else t for t in inputs]

    def stop(self: graph.GraphLowering) -> None:
        code, _ = self.codegen()
        with V.set_graph_handler(self):
            found[:] = getattr(code, "value", str(code)), sum(map(moved, self.scheduler.nodes))
        raise Written

    options = {"is_backward": kind == "backward", "is_inference": kind == "update", "cudagraphs": BoxedBool(False)}
    with mock.patch.object(graph.GraphLowering, "compile_to_module", stop), tracing(TracingContext(mode)):
        try:
            compile_fx.compile_fx_inner(module, fakes, graph_id=0, **options)
        except Exception:
            if not found:
                raise
    return found[0], found[1]


def moved(node: BaseSchedulerNode) -> int:
    """Bytes that a kernel reads and writes, but for what it makes and nobody else sees."""
    sizes = node.get_read_write_buffer_accesses(include_reads=True, include_writes=True)
    return sum(size for name, size in sizes.items() if name not in V.graph.removed_buffers)


def layout(x: Tensor, weight: Tensor, backend: Any) -> torch.memory_format:
    """What cuDNN makes of a convolution; without a GPU torch takes it for one that cuDNN does not know."""
    formats = [torch._prims_common.suggest_memory_format(t) for t in (x, weight)]
    return torch.channels_last if torch.channels_last in formats else torch.contiguous_format


@contextlib.contextmanager
def device() -> Iterator[None]:
    """While it lasts inductor and Triton believe that there is a GPU."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    cuda, interface = torch.cuda, device_interface.CudaInterface
    told = lambda value: lambda *args, **kwargs: value  # noqa: E731
    answers = [
        (cuda, "get_device_properties", GPU),
        (cuda, "get_device_capability", (9, 0)),
        (cuda, "get_device_name", GPU.name),
        (cuda, "current_device", 0),
        (cuda, "device_count", 1),
        (cuda, "_lazy_init", None),
        (cuda, "set_device", None),
        (interface.Worker, "get_device_properties", GPU),
        (interface.Worker, "current_device", 0),
        (interface, "get_device_properties", GPU),
        (interface, "get_compute_capability", 90),
        (interface, "is_available", True),
        (interface, "device_count", 1),
        (interface, "current_device", 0),
        (interface, "is_triton_capable", True),
        (interface, "raise_if_triton_unavailable", None),
        (interface, "is_bf16_supported", True),
    ]
    properties = {"max_shared_mem": 232448, "multiprocessor_count": 132, "warpSize": 32, "max_num_regs": 65536}
    stand_in = types.SimpleNamespace(
        utils=types.SimpleNamespace(get_device_properties=told(properties)),
        get_current_target=told(GPUTarget("cuda", 90, 32)),
        get_current_device=told(0),
        get_active_torch_device=told(torch.device("cuda", 0)),
        is_active=told(True),
    )
    has_triton = [
        (module, name)
        for module in [*sys.modules.values()]
        if getattr(module, "__name__", "").startswith("torch")
        for name in ("has_triton", "has_triton_package")
        if callable(vars(module).get(name))
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, answer in answers:
            ours = told(answer) if owner is cuda else staticmethod(told(answer))
            stack.enter_context(mock.patch.object(owner, name, ours))
        for module, name in has_triton:
            stack.enter_context(mock.patch.object(module, name, told(True)))
        stack.enter_context(mock.patch.object(torch._C, "_conv_determine_backend_memory_format", layout))
        stack.enter_context(mock.patch.object(driver, "_active", stand_in))
        stack.callback(hints.DeviceProperties.create.cache_clear)
        hints.DeviceProperties.create.cache_clear()
        yield
