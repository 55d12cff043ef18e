"""What a part of a plan is, as JSON that says all that decides what it does: a stored run is named by it.

What lth defines is told by its name and its fields: when it changes, `lth.training.identity.ENGINE` is raised. What
Python or an installed package defines is told by name and version. Everything else, such as a rule in a notebook or an
architecture in somebody's file, is told by its code and by what the code refers to: globals, closures, defaults,
attributes, base classes. The code is the compiled one, which is what runs: comments, layout and docstrings do not
count, it is there in a notebook as well, and a file that was edited after its import cannot mislead. Another version of
Python compiles to other code, and names such runs anew.

Not seen is what only running the code would show: files that it reads, names that it makes up (`getattr`, `eval`).
"""

from __future__ import annotations

import bisect
import copyreg
import dis
import enum
import functools
import hashlib
import importlib
import json
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import Tensor, contiguous_format, nn, uint8

from lth.errors import UsageError
from lth.models import Model
from lth.population import Population

# of a class, what Python and the standard library write into it, and what says nothing of what it does
NOTED = (
    *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__"),
    *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__slotnames__"),
    *("__dataclass_params__", "__dataclass_fields__", "__match_args__", "__parameters__", "__orig_bases__"),
    *("__abstractmethods__", "_abc_impl"),
)
EMPTY = types.CellType()
# instructions that say nothing: which of them there are depends on lines, and on what stands around the function
FILLING = ("EXTENDED_ARG", "NOP", "PUSH_NULL")
JUMPS = {*dis.hasjrel, *dis.hasjabs}
SIGNATURE = 0x2AC  # of a code object's flags: *args, **kwargs, generator, coroutine, asynchronous generator


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().flatten().clone(memory_format=contiguous_format)  # one number may have any stride
        digest.update(flat.view(uint8).numpy().tobytes())
    return digest.hexdigest()


def describe(role: str, thing: Any) -> Any:
    """What `thing` is, as JSON; `role` says what it is for. UsageError, naming the part, where it cannot be told."""
    return _Teller(role).tell(thing)


@functools.lru_cache
def origin(module: str) -> str | None:
    """Who answers for what a module defines: "lth", or Python or an installed package with its version; None for the
    user."""
    root = module.partition(".")[0]
    if root == "lth":
        return root
    file = getattr(sys.modules.get(module), "__file__", None)
    places = Path(file).parts if file else ()
    if root in sys.stdlib_module_names:
        library = Path(sysconfig.get_path("stdlib"))
        if not file or library.resolve() in Path(file).resolve().parents:
            return f"python {sys.version_info.major}.{sys.version_info.minor}"
    if {"site-packages", "dist-packages"} & set(places):  # not where a package under development lies
        try:
            return f"{root} {metadata.version(root)}"
        except metadata.PackageNotFoundError:  # its distribution has another name; to look for it takes seconds
            for package in _distributions().get(root, ()):
                return f"{package} {metadata.version(package)}"
    return None


@functools.lru_cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


class _Teller:
    """Tells one thing, part by part.

    path: the names that lead to the part, for the message where it cannot be told. seen: what is being told, and
    functions and classes told before, by identity; each is held, so that nothing else takes its place.
    """

    def __init__(self, role: str) -> None:
        self.path, self.seen, self.count = [role], {}, 0

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        self.path.append(name)
        yield
        self.path.pop()

    def refuse(self, thing: Any, why: str) -> UsageError:
        what = thing.__name__ if isinstance(thing, types.ModuleType) else f"a {type(thing).__qualname__}"
        return UsageError(
            f"a stored run is named by all that decides it, but {' → '.join(self.path)} is {what}, {why}. "
            "Hold numbers, text, tensors, functions or dataclasses instead"
        )

    def tell(self, thing: Any) -> Any:
        if isinstance(thing, bool | int | float | str | None):
            return thing
        if isinstance(thing, Tensor):
            return tensors_hash({"": thing})
        if id(thing) in self.seen:
            return {"told before": self.seen[id(thing)][0]}
        self.seen[id(thing)] = self.count, thing
        self.count += 1
        told = self._tell(thing)
        if not isinstance(thing, type | types.FunctionType):  # two equal values are told alike, shared or not
            del self.seen[id(thing)]
        return told

    def _tell(self, thing: Any) -> Any:
        kind = type(thing)
        if isinstance(thing, Population):
            parts = (thing.params, thing.masks, thing.buffers)
            return [self.tell(thing.model), *map(tensors_hash, parts)]
        if origin(kind.__module__) == "lth" and not isinstance(thing, type | nn.Module):
            return self._own(thing)
        if kind in (dict, types.MappingProxyType):
            if all(isinstance(key, str) for key in thing):
                return self.each(thing)
            return {"pairs": _sorted([self.tell(key), self.tell(value)] for key, value in thing.items())}
        if kind in (list, tuple):
            return [self.tell(value) for value in thing]
        if kind in (set, frozenset):
            return {"set": _sorted(map(self.tell, thing))}
        if kind in (bytes, bytearray):
            return {"bytes": hashlib.sha256(thing).hexdigest()}
        if isinstance(thing, types.ModuleType):
            if place := origin(thing.__name__):
                return {"name": thing.__name__, "of": place}
            raise self.refuse(thing, "a module of your own: name what is used of it, as in `module.function`")
        if name := _name(thing):
            return name
        if kind is types.CodeType:
            raise self.refuse(thing, "code by itself")
        if kind is types.FunctionType:
            return self._function(thing)
        if isinstance(thing, type):
            return self._class(thing)
        return self._object(thing)

    def each(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values by name; always in one order, so that what is told before is."""
        told = {}
        for name, value in sorted(values.items()):
            with self.at(name):
                told[name] = self.tell(value)
        return told

    def _own(self, thing: Any) -> Any:
        """What lth defines: fields other than their default, so that a new field keeps old keys."""
        if isinstance(thing, BaseModel):
            return {"kind": type(thing).__name__, **thing.model_dump(mode="json", exclude_defaults=True)}
        if not is_dataclass(thing):
            raise self.refuse(thing, "which changes from run to run")
        told = self.each({f.name: getattr(thing, f.name) for f in fields(thing) if not _is_default(thing, f)})
        own = {"architecture": self.tell(build)} if isinstance(thing, Model) and (build := thing.registered) else {}
        return {"kind": type(thing).__name__, **told, **own}

    def _function(self, function: types.FunctionType) -> Any:
        code, scope = function.__code__, function.__globals__
        told: dict[str, Any] = {"function": code.co_qualname}
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        held = {name: cell.cell_contents for name, cell in cells if cell != EMPTY}
        if place := origin(scope.get("__name__", "")):  # made by a package, such as the one that torch.no_grad() gives
            told |= {"module": scope["__name__"], "of": place}
        else:
            used: dict[str, Any] = {}
            told["code"] = self._code(code, scope, used)
            attributes = {name: value for name, value in vars(function).items() if name != "__wrapped__"}
            given = {"defaults": function.__defaults__, "keywords": function.__kwdefaults__, "attributes": attributes}
            told |= {"uses": self.each(used)} | self.each({name: value for name, value in given.items() if value})
        return told | ({"holds": self.each(held)} if held else {})

    def _code(self, code: types.CodeType, scope: Mapping[str, Any], used: dict[str, Any]) -> list[Any]:
        """Compiled code, with places counted in instructions; the globals that it needs are put into `used`."""
        told: list[Any] = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & SIGNATURE]
        compiled = dis.Bytecode(code)
        steps = [step for step in compiled if step.opname not in FILLING]
        place = functools.partial(bisect.bisect_left, [step.offset for step in steps])
        for at, step in enumerate(steps):
            name, value = step.opname.replace("LOAD_METHOD", "LOAD_ATTR"), step.argval
            if isinstance(value, types.CodeType):
                value = self._code(value, scope, used)
            elif name in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
                if value in scope:
                    self._global(value, scope[value], steps[at + 1 :], used)
            elif name == "IMPORT_NAME":
                self._import(value)
            else:
                value = place(value) if step.opcode in JUMPS else self.tell(value)
            told.append([name, value])
        caught = [[place(e.start), place(e.end), place(e.target), e.depth, e.lasti] for e in compiled.exception_entries]
        return [*told, caught]

    def _global(self, name: str, value: Any, following: list[dis.Instruction], used: dict[str, Any]) -> None:
        """Notes the value of a global name; of a module of the user's, the value of what is taken from it."""
        for step in following:
            if not isinstance(value, types.ModuleType) or origin(value.__name__):
                break
            if step.opname not in ("LOAD_ATTR", "LOAD_METHOD") or not hasattr(value, step.argval):
                break
            name, value = f"{name}.{step.argval}", getattr(value, step.argval)
        used[name] = value

    def _import(self, name: str) -> None:
        with self.at(f"import {name}"):
            try:
                module = importlib.import_module(name)
            except (ImportError, ValueError):  # not there, or relative
                module = types.ModuleType(name or ".")
            if not origin(module.__name__):
                raise self.refuse(module, "imported inside a function: import it above, where it can be looked into")

    def _class(self, kind: type) -> Any:
        members = {n: m for n, m in vars(kind).items() if n not in NOTED and not _is_written(kind, m)}
        told = {"class": kind.__qualname__, "members": self.each({n: _inside(m) for n, m in members.items()})}
        if is_dataclass(kind):
            defaults = [(f.name, f.default, f.default_factory) for f in fields(kind)]
            told["fields"] = [[name, *(self.tell(d) for d in two if d is not MISSING)] for name, *two in defaults]
        bases = [base for base in (*kind.__bases__, type(kind)) if base not in (object, type)]
        return told | {"bases": [self.tell(base) for base in bases]}

    def _object(self, thing: Any) -> Any:
        """Any other object, by its class and its state as the pickle protocol has them."""
        kind = type(thing)
        if isinstance(thing, enum.Enum):
            return {"class": self.tell(kind), "member": thing.name}
        if isinstance(thing, functools.partial):
            return {"partial": self.tell(thing.func), "given": [self.tell(thing.args), self.tell(thing.keywords)]}
        if hasattr(thing, "__wrapped__") and origin(kind.__module__):  # functools.lru_cache: not what it remembers
            return {"class": self.tell(kind), "of": self.tell(thing.__wrapped__)}
        if isinstance(thing, types.MethodType):
            return {"method": self.tell(thing.__func__), "of": self.tell(thing.__self__)}
        try:
            reduced = copyreg.dispatch_table.get(kind, lambda it: it.__reduce_ex__(4))(thing)
        except Exception as error:  # whatever a class raises that cannot be taken apart
            raise self.refuse(thing, "which cannot be looked into") from error
        if isinstance(reduced, str):
            return {"class": self.tell(kind), "name": reduced}
        make, given, state, items, pairs = (*reduced, *[None] * (5 - len(reduced)))[:5]
        if isinstance(state, dict):
            remembered = functools.cached_property
            state = {n: v for n, v in state.items() if not isinstance(getattr(kind, n, None), remembered)}
        made = [self.tell(make), self.tell(given)]
        for listed in (items, pairs):
            made += [[self.tell(entry) for entry in listed]] if listed is not None else []
        return {"object": made, "state": self.tell(state)}


def _is_default(thing: Any, field: Field) -> bool:
    value = getattr(thing, field.name)
    return isinstance(value, bool | int | float | str | None) and value == field.default


def _sorted(told: Any) -> list[Any]:
    return sorted(told, key=lambda part: json.dumps(part, sort_keys=True))


def _name(thing: Any) -> dict[str, str] | None:
    """The name of what Python, an installed package or lth defines, if it can be had by that name."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or not (place := origin(module)):
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return {"name": f"{module}.{name}", "of": place} if found is thing else None


def _is_written(kind: type, member: Any) -> bool:
    """Whether `dataclass` wrote this member, or Python did for `__slots__`: all of it lies in the fields."""
    if isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType):
        return True
    code = getattr(getattr(member, "__wrapped__", member), "__code__", None)
    return is_dataclass(kind) and code is not None and code.co_qualname.startswith("__create_fn__")


def _inside(member: Any) -> Any:
    """What a class holds behind Python's own wrappings of a method."""
    if isinstance(member, staticmethod | classmethod):
        return [type(member).__name__, member.__func__]
    if isinstance(member, property):
        return ["property", member.fget, member.fset, member.fdel]
    if isinstance(member, functools.cached_property):
        return ["property", member.func]
    return member
