"""Documents are true: the commands they show exist, and their links lead somewhere."""

from __future__ import annotations

import re
import shlex

import pytest
from typer.testing import CliRunner

from labs_helpers.cli import app
from labs_helpers.paths import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
COMMAND = re.compile(r"\./labs((?: [\w.@/=:-]+)*)")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    dead = [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()]
    assert dead == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_their_options_exist(document):
    for shown in set(COMMAND.findall(document.read_text())):
        words = shlex.split(shown)
        names = []
        for word in words[:2]:  # './labs engines start llama.cpp': the first one or two words are the command
            if not word[0].isalpha() or CliRunner().invoke(app, [*names, word, "--help"]).exit_code:
                break
            names.append(word)
        assert names or not words or words[0].startswith("-"), f"{document.name} shows './labs{shown}'"
        help_text = CliRunner().invoke(app, [*names, "--help"]).output
        for option in (word.partition("=")[0] for word in words if word.startswith("-")):
            assert option in help_text, f"{document.name} shows './labs{shown}', there is no {option}"


def test_the_two_commands_are_shown_and_ci_runs_the_second():
    readme = (ROOT / "README.md").read_text()
    assert "./labs run" in readme and "./labs test" in readme
    assert "./labs test" in (ROOT / ".ci" / "run").read_text()


def test_student_notebooks_named_in_the_readme_exist_and_all_are_named():
    from labs_helpers import syllabus

    readme = (ROOT / "README.md").read_text()
    for entry in syllabus.CONTENTS:
        assert (f"notebooks/{entry.student.name}" in readme) == entry.built, entry.id
