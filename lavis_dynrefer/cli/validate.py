"""Check the yaml of a run, a model or a dataset without building a model.

dynrefer validate projects/dynrefer/evaluate/ovad.yaml --options run.seed=1
dynrefer validate run.yaml --data

Exit code 0: all is well. 2: something is wrong, or data that --data should read cannot be read.
Other files that are not here are warnings.
"""

from __future__ import annotations

import argparse

from lavis_dynrefer.errors import EXIT_BAD_INPUT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer validate`."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="yaml of a run, model or dataset")
    parser.add_argument(
        "--options", nargs="+", default=[], help="settings that override the yaml: a.b=1, or a.b 1"
    )
    parser.add_argument(
        "--data",
        action="store_true",
        help="also read the data of runs, and prepare it; else only what is prepared is checked",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check every file; returns 0, or 2 if one is wrong."""
    from lavis_dynrefer.training.checks.file_checks import check_file

    code = 0
    for name in arguments.files:
        findings = check_file(name, arguments.options, read_data=arguments.data)
        problems = sum(finding.fatal for finding in findings)
        print(f"{name}: {f'{problems} wrong' if problems else 'ok'}")
        for finding in findings:
            print(f"  {'error' if finding.fatal else 'warning'}: {finding.text}")
        code = EXIT_BAD_INPUT if problems else code
    return code
