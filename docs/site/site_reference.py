"""What the API reference needs beside autodoc: names as links, and the options of the commands."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from docutils import nodes
from settings_tables import SettingsTable
from sphinx.addnodes import pending_xref
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from lavis_dynrefer.cli import COMMANDS

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def name_role(
    _role: str, raw: str, text: str, _line: int, inliner: Any, *_: Any
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """`text` in a docstring: a link where that name is documented, else code."""
    code = nodes.literal(raw, text, classes=["xref", "py"])
    if not _NAME.fullmatch(text):
        return [code], []
    env = inliner.document.settings.env
    place = {f"py:{kind}": env.ref_context.get(f"py:{kind}") for kind in ("module", "class")}
    link = pending_xref(
        raw, code, refdomain="py", reftype="obj", reftarget=text, refdoc=env.docname, **place
    )
    return [link], []


def find_by_last_name(app: Any, env: Any, node: pending_xref, content: nodes.Node) -> Any:
    """A name written without its module, if only one documented thing ends so."""
    if node.get("refdomain") != "py":
        return None
    ending = "." + node["reftarget"].lstrip(".")
    found = {
        (item.docname, item.node_id): name
        for name, item in env.domains["py"].objects.items()
        if ("." + name).endswith(ending)
    }
    if len(found) != 1:
        return None
    ((page, anchor), name) = next(iter(found.items()))
    return make_refnode(app.builder, node["refdoc"], page, anchor, content, name)


def tidy_signature(
    _app: Any,
    _what: str,
    _name: str,
    thing: Any,
    _options: Any,
    signature: str | None,
    returns: Any,
) -> tuple[str | None, Any] | None:
    """A signature as one reads it."""
    if signature is None:
        return None
    if getattr(thing, "_is_protocol", False):  # nobody calls it
        return "", returns
    tidy = signature.replace("<factory>", "...")  # of dataclasses
    return re.sub(r"TypeAliasForwardRef\('(?:\w+\.)*(\w+)'\)", r"\1", tidy), returns


def set_dashes(_app: Any, doctree: nodes.document) -> None:
    """A dash behind the name of an argument; none within an option, nor a line's end."""
    for text in list(doctree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" \N{EN DASH} "))
    for code in doctree.findall(nodes.literal):
        if re.fullmatch(r"--?[a-z-]+", code.astext()):
            code["classes"].append("option")


class CommandOptions(SphinxDirective):
    """`{command-options} predict`: how a command is called, then its arguments by group."""

    required_arguments = 1

    def run(self) -> Sequence[nodes.Node]:
        """Code, and a list of definitions for each group; the same for each subcommand."""
        name = self.arguments[0]
        module = importlib.import_module(COMMANDS[name][0])
        parser = argparse.ArgumentParser(prog=f"dynrefer {name}", add_help=False)
        module.add_arguments(parser)
        return list(_describe(parser))


def _describe(parser: argparse.ArgumentParser) -> Iterator[nodes.Node]:
    formatter = parser._get_formatter()
    below: list[argparse.ArgumentParser] = []
    call = [parser.prog]
    groups = []
    for group in parser._action_groups:
        entries = nodes.definition_list(classes=["options"])
        for action in group._group_actions:
            if isinstance(action, argparse._SubParsersAction):
                below += action.choices.values()
            elif action.help is not argparse.SUPPRESS and action.dest != "help":
                entries += _entry(action, formatter)
                if not action.option_strings:
                    call.append(formatter._format_args(action, action.dest))
        if entries.children:
            groups += [*_title(group.title), entries]
    if below:
        yield from groups
        for command in below:
            yield from _describe(command)
        return
    usage = " ".join([*call, "[OPTION ...]"])
    yield nodes.literal_block(usage, usage, language="text")
    yield from groups


def _title(title: str | None) -> list[nodes.Node]:
    if title in ("positional arguments", "options"):  # argparse's own
        return []
    return [nodes.paragraph("", "", nodes.strong("", str(title).capitalize()))]


def _entry(action: argparse.Action, formatter: argparse.HelpFormatter) -> nodes.Node:
    text = formatter._format_action_invocation(action)
    meaning = formatter._expand_help(action) if action.help else ""
    return nodes.definition_list_item(
        "",
        nodes.term("", "", nodes.literal(text, text)),
        nodes.definition("", nodes.paragraph(meaning, meaning)),
    )


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.add_role("name", name_role)
    app.add_directive("command-options", CommandOptions)
    app.add_directive("settings-table", SettingsTable)
    app.connect("autodoc-process-signature", tidy_signature)
    app.connect("doctree-read", set_dashes)
    app.connect("missing-reference", find_by_last_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
