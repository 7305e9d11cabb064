"""The options that a cloud's own fields are on the command line, and back."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from ..providers import Provider

OFF = "no_"  # before the name of a switch that is on by default


def add_options(command: argparse.ArgumentParser, cloud: Provider) -> None:
    """Take what the cloud's request has besides the fields of all clouds."""
    defaults = {field.name: field.default for field in fields(cloud.request)}
    for option in cloud.options:
        flag, default = f"--{option.name.replace('_', '-')}", defaults[option.field]
        if isinstance(default, bool):
            command.add_argument(flag, action="store_true", help=option.help)
        else:
            command.add_argument(flag, type=type(default), default=default, metavar=option.metavar, help=option.help)


def chosen(given: argparse.Namespace, cloud: Provider) -> dict[str, Any]:
    """The fields of the cloud's request that were taken."""
    found = {option: getattr(given, option.name) for option in cloud.options}
    return {option.field: not value if option.name.startswith(OFF) else value for option, value in found.items()}


def aliases(cloud: Provider) -> dict[str, str]:
    """What a node and the cloud call what an option calls otherwise."""
    return {option.field: option.name for option in cloud.options if not option.name.startswith(OFF)}
