"""A pretend GPU: tensors of the CPU that say they are on `cuda:0`, and are refused where a GPU's would be.

    with pretend_gpu() as gpu:
        run = train(population.to("cuda"), data.to("cuda"), recipe)

Whatever is computed must equal, bit by bit, what the CPU computes; and at the level of the Python calls

- tensors of two devices do not mix, but for what torch allows: copies, indices, single numbers;
- `torch.cuda.graph` writes operations down, forward and backward, without doing any of them; waiting for the device
  and copies from memory that is not pinned are errors meanwhile. `replay` does them again on the same memory. What a
  step computes on the host, or keeps in memory that is replaced, is then wrong in every step but the first;
- the device is late: replays, and copies from pinned memory, are put off until somebody looks. A buffer of the host
  that is filled again too early gives wrong numbers;
- compiling, recording and memory fail when a test wants it (`Gpu.fail`, `Gpu.memory`), and after a recording that
  failed torch refuses another, and to empty its cache, as torch 2.11 does.

It knows nothing of kernels, of their speed, of the compiler, of streams side by side.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

CUDA = torch.device("cuda", 0)
# by these the host learns numbers, or shapes that follow from numbers
WAITING = (
    *("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__contains__", "__repr__", "__format__"),
    *("is_nonzero", "equal", "allclose", "nonzero", "argwhere", "masked_select", "unique", "unique_consecutive"),
    *("bincount", "linalg_eigh", "linalg_eigvalsh"),
)
WAITING_BELOW = ("aten._local_scalar_dense.default", "aten.nonzero.default", "aten.equal.default")
ACROSS = ("copy_", "to", "type_as", "view_as", "expand_as", "reshape_as")  # may be given tensors of two devices
# these take no single number of the CPU beside tensors of the device
STRICT = (
    *("cat", "stack", "index_select", "gather", "scatter", "scatter_", "index_fill_", "matmul", "__matmul__", "bmm"),
    *("baddbmm", "conv2d", "linear", "batch_norm", "cross_entropy"),
)


class OnGpu(Tensor):
    """A tensor of the device. Its numbers are in the host's memory, which nobody is told."""

    @classmethod
    def __torch_function__(cls, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return Gpu.here.call(function, args, kwargs or {})


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """Those in arguments or results: torch's own walk through a tree took a quarter of the time."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from tensors_in(part)
    elif isinstance(tree, dict):
        yield from tensors_in(tuple(tree.values()))


def on_gpu(tensor: Tensor) -> Tensor:
    """Makes a result the device's own."""
    if type(tensor) is Tensor:
        tensor.__class__ = OnGpu
    return tensor


class Gpu(TorchFunctionMode):
    """The device, and what it has yet to do."""

    here: Gpu

    def __init__(self) -> None:
        super().__init__()
        Gpu.here = self
        self.late: list[Callable[[], Any]] = []
        self.one_at_a_time = threading.RLock()  # a thread that fills the host's buffers may wait for the device, too
        self.recording: Recording | None = None
        self.graphs = self.replays = 0
        self.spoilt = False  # by a recording that failed
        self.stream = self.first_stream = Stream()
        self.capability = 9, 0
        self.memory = {"free": 2**40, "peak": 0}
        self.fail: Callable[[str], None] = lambda moment: None  # may raise at "compiled", "recording", "recorded"

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return self.call(function, args, kwargs or {})

    def call(self, function: Callable, args: tuple, kwargs: dict) -> Any:
        """What a GPU would do with this call of torch's."""
        name = getattr(function, "__name__", str(function))
        with torch._C.DisableTorchFunctionSubclass():
            if name in ("__get__", "__set__"):
                return self._attribute(function, args)
            tensors = list(tensors_in((args, kwargs)))
            ours = [t for t in tensors if isinstance(t, OnGpu)]
            goal = _goal(name, args, kwargs)
            if not ours and goal is None:
                return function(*args, **kwargs)
            _refuse_mixed(name, args, tensors)
            if name == "copy_" and not isinstance(args[1], OnGpu):
                return self._upload(*args, **kwargs)
            self.catch_up()
            if ours and (name in WAITING or _depends_on_numbers(name, args) or (name == "tensor" and ours)):
                self.wait(name)
            if ours and name in ("numpy", "__array__"):
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
            if ours and name == "pin_memory":
                raise RuntimeError("only dense CPU tensors can be pinned")
            if name == "__iter__":
                return iter([on_gpu(part) for part in args[0].unbind(0)])
            if name in ("to", "cuda", "cpu") or (name == "copy_" and not isinstance(args[0], OnGpu)):
                return self._move(name, function, args, kwargs, goal)
            if goal is not None:
                if goal.type == "cuda" and kwargs.get("generator") is not None:
                    raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
                kwargs = {**kwargs, "device": "cpu"}
            found = function(*args, **kwargs)
            if isinstance(found, Tensor) or (goal is not None and goal.type == "cpu"):
                return found if goal is not None and goal.type == "cpu" else on_gpu(found)
            return tree_map_only(Tensor, on_gpu, found) if isinstance(found, (tuple, list, dict)) else found

    def _attribute(self, function: Any, args: tuple) -> Any:
        name = getattr(getattr(function, "__self__", None), "__name__", "")
        told = {"device": CUDA, "is_cuda": True, "is_cpu": False}
        if isinstance(args[0], OnGpu) and name in told:
            return told[name]
        found = function(*args)
        return on_gpu(found) if isinstance(found, Tensor) and isinstance(args[0], OnGpu) else found

    def _move(self, name: str, function: Callable, args: tuple, kwargs: dict, goal: torch.device | None) -> Any:
        """From a device to one, or to another type."""
        source = args[0]
        if name == "copy_":
            self.wait("a copy to the host")
            return function(*args, **kwargs)
        start = CUDA if isinstance(source, OnGpu) else torch.device("cpu")
        goal = goal or start
        rest = [a for a in args[1:] if not isinstance(a, (str, torch.device))]
        more = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking")}
        found = source.to(*rest, **more) if rest or more else source
        if start.type != goal.type:
            if goal.type == "cpu":
                self.wait("a copy to the host")
            elif self.recording:
                raise RuntimeError("operation not permitted when stream is capturing: a copy from memory not pinned")
            found = (found.clone() if found is source else found).as_subclass(Tensor)
        return on_gpu(found) if goal.type == "cuda" else found

    def _upload(self, into: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        """`copy_` from the host: put off where the memory is pinned and nobody waits."""
        put_off = non_blocking and getattr(source, "pinned", False)
        if self.recording and source.ndim and not put_off:
            raise RuntimeError("operation not permitted when stream is capturing: a copy from memory not pinned")
        self.late.append(lambda: into.copy_(source))  # of what will be there then
        if not put_off:
            self.catch_up()
        return into

    def wait(self, why: str) -> None:
        """The host waits for the device."""
        if self.recording:
            raise RuntimeError(f"operation not permitted when stream is capturing: {why}")
        self.catch_up()

    def catch_up(self) -> None:
        """Does what was put off."""
        with self.one_at_a_time:
            if self.late:
                with torch._C.DisableTorchFunction(), torch.no_grad():
                    while self.late:
                        self.late.pop(0)()

    def empty_cache(self) -> None:
        if self.spoilt:
            raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")


def _goal(name: str, args: tuple, kwargs: dict) -> torch.device | None:
    """The device that a call names, if any."""
    told = {"cuda": CUDA, "cpu": "cpu"}.get(name, kwargs.get("device"))
    for arg in args[1:] if name == "to" and told is None else ():
        if isinstance(arg, Tensor):
            told = CUDA if isinstance(arg, OnGpu) else arg.device
        elif isinstance(arg, (str, torch.device)):
            told = arg
    told = None if told is None else torch.device(told)
    return told if told is None or told.type in ("cuda", "cpu") else None


def _refuse_mixed(name: str, args: tuple, tensors: list[Tensor]) -> None:
    others = [t for t in tensors if not isinstance(t, OnGpu) and t.device.type == "cpu"]
    if len(others) in (0, len(tensors)) or name in ACROSS:
        return
    if name in ("__getitem__", "__setitem__", "index_put_") and isinstance(args[0], OnGpu):
        value = args[2] if len(args) > 2 else None  # indices may lie in the host's memory
        by_slice = not list(tensors_in(args[1]))
        if not isinstance(value, Tensor) or isinstance(value, OnGpu) or value.ndim == 0 or by_slice:
            return
    if name in STRICT or any(t.ndim for t in others):
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device, but found cuda:0 and cpu!")


def _depends_on_numbers(name: str, args: tuple) -> bool:
    """Whether how many numbers an index finds is known only to the device."""
    if name not in ("__getitem__", "__setitem__"):
        return False
    masks = [i for i in tensors_in(args[1]) if i.dtype in (torch.bool, torch.uint8)]
    filled = name == "__setitem__" and not (isinstance(args[2], Tensor) and args[2].ndim)
    return bool(masks) and not filled


# --- graphs -------------------------------------------------------------------------------------------------


class Recording(TorchDispatchMode):
    """Writes down every operation and the memory it works on. All is as it was, afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable, tuple, dict, list[Tensor | None]]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}  # address → the bytes there, and as they were
        self.own: set[int] = set()  # addresses of what the recording itself made
        self.held: list[Any] = []  # so that no address is given away twice

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if str(function) in WAITING_BELOW:
            Gpu.here.wait(str(function))
        schema = function._schema.arguments
        written = [args[i] for i, a in enumerate(schema) if a.is_write and i < len(args)]
        written += [kwargs[a.name] for a in schema if a.is_write and a.name in kwargs]
        if "batch_norm" in str(function) and "backward" not in str(function):  # does not say so of its statistics
            written += args[3:5]
        for tensor in tensors_in(written):
            self._remember(tensor)
        given = {_address(t) for t in tensors_in((args, kwargs))}
        found = function(*args, **kwargs)
        results = list(tensors_in(found))
        fresh = [None if _address(t) in given else t for t in results]
        self.own |= {_address(t) for t in fresh if t is not None}
        self.held.append(results)
        if written or any(t is not None for t in fresh):  # otherwise a view
            self.calls.append((function, args, kwargs, fresh))
        return found

    def _remember(self, tensor: Tensor) -> None:
        at = _address(tensor)
        if at not in self.own and at not in self.before:
            whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
            self.before[at] = whole, whole.clone()

    def undo(self) -> None:
        for whole, old in self.before.values():
            whole.copy_(old)

    def repeat(self) -> None:
        for function, args, kwargs, fresh in self.calls:
            found = list(tensors_in(function(*args, **kwargs)))
            for old, new in zip(fresh, found, strict=True):
                if old is not None:
                    old.copy_(new)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Graph:
    """In the place of torch.cuda.CUDAGraph."""

    recording: Recording

    def replay(self) -> None:
        if Gpu.here.recording:
            raise RuntimeError("operation not permitted when stream is capturing: a replay")
        Gpu.here.replays += 1
        Gpu.here.late.append(self.recording.repeat)


@contextlib.contextmanager
def record(graph: Graph, capture_error_mode: str = "global") -> Iterator[None]:
    """In the place of torch.cuda.graph. As there, the stream stays another one where the end fails."""
    gpu = Gpu.here
    gpu.empty_cache()
    gpu.catch_up()
    stream, gpu.stream = gpu.stream, Stream()
    graph.recording = gpu.recording = Recording()
    try:
        with graph.recording:
            gpu.fail("recording")
            yield
        gpu.fail("recorded")
    except Exception as error:
        gpu.spoilt = True
        raise torch.AcceleratorError("CUDA error: operation failed due to a previous error during capture") from error
    finally:
        gpu.recording = None
        with torch._C.DisableTorchFunction(), torch.no_grad():
            graph.recording.undo()
    gpu.graphs += 1
    gpu.stream = stream


class Stream:
    """In the place of torch.cuda.Stream."""

    def wait_stream(self, other: Stream) -> None: ...

    def record_event(self) -> Event:
        return Event()


class Event:
    """In the place of torch.cuda.Event."""

    def synchronize(self) -> None:
        Gpu.here.catch_up()


@contextlib.contextmanager
def on_stream(stream: Stream) -> Iterator[None]:
    before, Gpu.here.stream = Gpu.here.stream, stream
    yield
    Gpu.here.stream = before


# --- the device is put in torch's place ---------------------------------------------------------------------


class Autocast(torch.autocast):
    """The device rounds as the CPU does."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


def pin_memory(tensor: Tensor) -> Tensor:
    copy = tensor.clone()
    copy.pinned = True
    return copy


def compiled(function: Callable, **options: Any) -> Callable:
    def run(*args: Any) -> Any:
        Gpu.here.fail("compiled")
        return function(*args)

    return run


@contextlib.contextmanager
def pretend_gpu() -> Iterator[Gpu]:
    """While it lasts `cuda` is the pretend GPU."""
    gpu = Gpu()
    in_cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda *device: "pretend GPU",
        "get_device_capability": lambda *device: gpu.capability,
        "synchronize": lambda *device: gpu.catch_up(),
        "empty_cache": gpu.empty_cache,
        "mem_get_info": lambda *device: (gpu.memory["free"], 2**40),
        "memory_allocated": lambda *device: 0,
        "max_memory_allocated": lambda *device: gpu.memory["peak"],
        "reset_peak_memory_stats": lambda *device: None,
        "Stream": Stream,
        "current_stream": lambda *device: gpu.stream,
        "set_stream": lambda stream: setattr(gpu, "stream", stream),
        "stream": on_stream,
        "device": lambda device: contextlib.nullcontext(),
        "CUDAGraph": Graph,
        "graph": record,
    }
    with contextlib.ExitStack() as stack:
        for name, ours in in_cuda.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, ours))
        for owner, name, ours in (
            (torch, "autocast", Autocast),
            (torch, "compile", compiled),
            (Tensor, "pin_memory", pin_memory),
        ):
            stack.enter_context(mock.patch.object(owner, name, ours))
        stack.enter_context(gpu)
        yield gpu
        gpu.catch_up()
