"""A small stand-in for the parts of ComfyUI's V3 API that the pack uses, as strict as ComfyUI is with it.

It loads a pack by its folder as ComfyUI does, checks values against a node's schema, locks node classes so
that none keeps a state, and runs nodes in inference mode.
"""

import asyncio
import importlib.util
import inspect
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch


class Interrupted(Exception):
    """What ComfyUI raises in a node when somebody cancels."""


@dataclass
class Slot:
    """An input or an output of a type."""

    type: str
    id: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def kind(name: str) -> Any:
    """A type with its `Input` and `Output`."""

    def make_input(id: str, **options: Any) -> Slot:
        known = {
            "default",
            "min",
            "max",
            "options",
            "tooltip",
            "multiline",
            "control_after_generate",
            "optional",
        }
        assert set(options) <= known, options
        return Slot(name, id, options)

    def make_output(id: str = "", display_name: str = "") -> Slot:
        return Slot(name, id or display_name)

    return SimpleNamespace(Input=make_input, Output=make_output)


@dataclass
class Schema:
    node_id: str
    display_name: str
    category: str
    description: str
    inputs: list[Slot]
    outputs: list[Slot]


class NodeOutput:
    def __init__(self, *args: Any) -> None:
        self.args = args


class _Locked(type):
    def __setattr__(cls, name: str, value: object) -> None:
        raise AttributeError(f"a node keeps no state, so {name} cannot be set")


class ComfyNode(metaclass=_Locked):
    def __init__(self) -> None:
        raise TypeError("nodes are never made: define_schema and execute are class methods")


class ComfyExtension:
    pass


class ComfyUI:
    """The program: `run` runs a node. `ticks`: what its bar was told; after `cancel_after` it cancels."""

    def __init__(self, pack: Path, monkeypatch: Any) -> None:
        self.ticks: list[tuple[int, int]] = []
        self.cancel_after: int | None = None
        io = SimpleNamespace(
            ComfyNode=ComfyNode, Schema=Schema, NodeOutput=NodeOutput, Custom=kind, String=kind("STRING"),
            Int=kind("INT"), Float=kind("FLOAT"), Combo=kind("COMBO"), Image=kind("IMAGE"),
            Latent=kind("LATENT"),
        )  # fmt: skip
        outer = self

        class ProgressBar:
            def __init__(self, total: int) -> None:
                self.total = total

            def update_absolute(self, value: int, total: int | None = None) -> None:
                outer.ticks.append((value, total or self.total))

        def throw() -> None:
            if outer.cancel_after is not None and len(outer.ticks) >= outer.cancel_after:
                raise Interrupted

        for name, content in {
            "comfy_api": {}, "comfy_api.latest": {"ComfyExtension": ComfyExtension, "io": io}, "comfy": {},
            "comfy.utils": {"ProgressBar": ProgressBar},
            "comfy.model_management": {"throw_exception_if_processing_interrupted": throw},
        }.items():  # fmt: skip
            module = ModuleType(name)
            module.__dict__.update(content)
            monkeypatch.setitem(sys.modules, name, module)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)
        name = str(pack).replace(".", "_x_")
        spec = importlib.util.spec_from_file_location(name, pack / "__init__.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        del sys.modules[f"{name}.nodes"]  # the next stand-in loads it anew, with its own program in it
        extension = asyncio.run(module.comfy_entrypoint())
        assert isinstance(extension, ComfyExtension)
        classes = asyncio.run(extension.get_node_list())
        self.nodes = {node.define_schema().node_id: node for node in classes}
        assert len(self.nodes) == len(classes)

    def run(self, node_id: str, **given: Any) -> tuple[Any, ...]:
        """Runs a node; what is not given has its default, as in a new node of the editor."""
        node = self.nodes[node_id]
        assert issubclass(node, ComfyNode) and inspect.ismethod(node.execute)
        schema = node.define_schema()
        values = {slot.id: given.pop(slot.id, slot.options.get("default")) for slot in schema.inputs}
        assert not given, f"{node_id} has no input {given}"
        for slot in schema.inputs:
            _check(slot, values[slot.id])
        with torch.inference_mode():
            found = node.execute(**values)
        assert isinstance(found, NodeOutput) and len(found.args) == len(schema.outputs)
        for slot, value in zip(schema.outputs, found.args, strict=True):
            _check(slot, value)
        return found.args


def _check(slot: Slot, value: Any) -> None:
    assert value is not None, f"{slot.id} needs a value"
    if slot.type == "INT":
        assert isinstance(value, int) and slot.options["min"] <= value <= slot.options["max"]
    elif slot.type == "COMBO":
        assert value in slot.options["options"]
    elif slot.type == "STRING":
        assert isinstance(value, str)
    elif slot.type == "FLOAT":
        assert isinstance(value, float)
    elif slot.type == "IMAGE":
        assert value.dtype == torch.float32 and value.ndim == 4 and value.shape[-1] in (3, 4)
        assert value.min() >= 0 and value.max() <= 1
    elif slot.type == "LATENT":
        assert value["samples"].dtype == torch.float32
