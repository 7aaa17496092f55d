"""Processes beside this one: how they are started, asked and measured."""
