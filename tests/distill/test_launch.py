"""Settings for several processes: shipped, found by name, and read by accelerate itself."""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from distill.training.launch import launch_file, launch_names
from edge.errors import ConfigError


def read(name: str) -> tuple[Any, argparse.Namespace]:
    """The file as `accelerate launch` reads it, and what it would launch with."""
    file = str(launch_file(name))
    arguments = launch_command_parser().parse_args(["--config_file", file, "train.py"])
    return load_config_from_file(file), _validate_launch_command(arguments)[0]


@pytest.mark.parametrize("name", ["cpu", "deepspeed", "fsdp"])
def test_accelerate_reads_them(name: str) -> None:
    assert name in launch_names()
    config, arguments = read(name)
    assert arguments.num_processes == config.num_processes == 2
    assert arguments.mixed_precision == "no"
    chosen = {
        "cpu": arguments.multi_gpu,
        "fsdp": arguments.use_fsdp,
        "deepspeed": arguments.use_deepspeed,
    }
    assert [key for key, value in chosen.items() if value] == [name]


def test_all_are_tested() -> None:
    assert launch_names() == ["cpu", "deepspeed", "fsdp"]


def test_what_large_teachers_are_divided_by() -> None:
    fsdp, deepspeed = read("fsdp")[1], read("deepspeed")[1]
    assert (int(fsdp.fsdp_version), str(fsdp.fsdp_offload_params).lower()) == (2, "false")
    assert int(deepspeed.zero_stage) == 3


def test_where_they_are() -> None:
    command = [sys.executable, "-m", "distill.training.launch"]
    found = subprocess.run([*command, "fsdp"], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(launch_file("fsdp"))
    wrong = subprocess.run([*command, "fdsp"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "did you mean 'fsdp'" in wrong.stderr
    with pytest.raises(ConfigError, match="unknown launch setting 'fdsp'"):
        launch_file("fdsp")
