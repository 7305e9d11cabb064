"""What the pack does one way on the oldest ComfyUI and another way on newer ones: both ways, on whichever runs here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from inside_checks import check

ABSENT = object()


@contextmanager
def having(module: Any, name: str, value: Any) -> Iterator[None]:
    """A module with that value under a name, or without the name."""
    with mock.patch.dict(vars(module)):
        vars(module).pop(name, None)
        if value is not ABSENT:
            setattr(module, name, value)
        yield


@check
def out_of_memory_is_what_the_host_says_it_is(nodes: Any) -> None:
    import torch

    management, told = nodes.host.management, nodes.host.is_out_of_memory
    with having(management, "is_oom", ABSENT):
        assert told(torch.cuda.OutOfMemoryError())
    with having(management, "is_oom", lambda error: str(error) == "full"):
        assert told(RuntimeError("full"))
        assert not told(RuntimeError("broken"))


@check
def models_are_held_by_the_patcher_that_the_host_has_chosen(nodes: Any) -> None:
    import torch

    patching, cpu = importlib.import_module("comfy.model_patcher"), torch.device("cpu")

    class Chosen(patching.ModelPatcher):
        pass

    for chosen, wanted in ((ABSENT, patching.ModelPatcher), (Chosen, Chosen)):
        with having(patching, "CoreModelPatcher", chosen):
            assert type(nodes.host.hold(torch.nn.Linear(1, 1), cpu, cpu)) is wanted


@check
def a_model_is_dynamic_where_the_host_says_so(nodes: Any) -> None:
    told = nodes.host.is_dynamic
    assert not told(SimpleNamespace())
    for answer in (False, True):
        assert told(SimpleNamespace(is_dynamic=lambda answer=answer: answer)) is answer


@check
def a_page_of_another_site_is_refused_whatever_the_server_lets_through(nodes: Any) -> None:
    own = importlib.import_module(f"{nodes.__name__}.host.web").is_own
    assert own({})  # a program
    assert own({"Sec-Fetch-Site": "same-origin", "Origin": "https://proxy.example", "Host": "127.0.0.1:8188"})
    assert own({"Origin": "http://localhost:8188", "Host": "localhost:8188"})
    for site in ("cross-site", "same-site"):
        assert not own({"Sec-Fetch-Site": site, "Origin": "http://localhost:8188", "Host": "localhost:8188"})
    assert not own({"Origin": "http://other.example", "Host": "localhost:8188"})
    assert not own({"Origin": "null", "Host": "localhost:8188"})


@check
def a_line_stands_on_its_node_where_the_host_can_show_one(nodes: Any) -> None:
    shown: list[tuple[str, str]] = []
    able = SimpleNamespace(send_progress_text=lambda text, node: shown.append((text, node)))
    for instance in (None, SimpleNamespace(), able):
        module = SimpleNamespace(PromptServer=SimpleNamespace(instance=instance))
        with mock.patch.dict(sys.modules, {"server": module}):
            nodes.host.show_text("half of it", "7")
    assert shown == [("half of it", "7")]


@check
def a_node_leaves_out_what_the_host_has_no_field_for(nodes: Any) -> None:
    import dataclasses

    io = nodes.host.io
    made = nodes.host.schema("WanFLF2VLocal", display_name="A node", of_next_year=True)
    assert made.display_name == "A node"
    assert not hasattr(made, "of_next_year")
    known = {field.name for field in dataclasses.fields(io.Schema)}
    words = getattr(made, "search_aliases", None)
    assert ("image to video" in words) if "search_aliases" in known else words is None


@check
def the_stop_button_is_no_failure(nodes: Any) -> str:
    assert not nodes.host.is_failure(nodes.host.Stopped())
    assert not nodes.host.is_failure(KeyboardInterrupt())
    assert nodes.host.is_failure(ValueError())
    return f"{nodes.host.Stopped.__name__} is an Exception: {issubclass(nodes.host.Stopped, Exception)}"


@check
def only_a_plain_mp4_is_written_by_the_pack(nodes: Any) -> None:
    """Every container and codec of this host, as its own Save Video asks for them."""
    types, ask = nodes.host.values.Types, nodes.host.is_plain_mp4
    for container in types.VideoContainer:
        for codec in types.VideoCodec:
            plain = container.value in ("auto", "mp4") and codec.value in ("auto", "h264")
            assert ask("clip.mp4", container, codec) == plain, (container, codec)
    assert not ask("clip.webm", "auto", "auto")
    assert not ask(sys.stdout.buffer, "mp4", "h264")  # a stream
