#!/usr/bin/env python3
"""Holds the dependencies to deny.toml: licences, sources, no wildcard versions. Offline, Python 3.11's library only.

It stands in for `cargo deny check bans licenses sources` where cargo-deny is not installed.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def permitted(expression, allowed):
    """Whether the SPDX expression can be met with the allowed licences alone."""
    # Old manifests write "MIT/Apache-2.0" for OR.
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def peek():
        return tokens[position] if position < len(tokens) else None

    def take():
        nonlocal position
        position += 1
        return tokens[position - 1]

    def either():
        result = both()
        while peek() == "OR":
            take()
            result = both() or result
        return result

    def both():
        result = one()
        while peek() == "AND":
            take()
            result = one() and result
        return result

    def one():
        if peek() is None:
            raise ValueError("it ends too early")
        token = take()
        if token == "(":
            result = either()
            if peek() != ")":
                raise ValueError("a parenthesis is missing")
            take()
            return result
        if peek() == "WITH":
            take()
            token = f"{token} WITH {take()}"
        return token in allowed

    result = either()
    if peek() is not None:
        raise ValueError(f"{peek()!r} is out of place")
    return result


def main():
    config = tomllib.loads((REPOSITORY / "deny.toml").read_text())
    allowed = set(config["licenses"]["allow"])
    exceptions = {e["crate"]: set(e["allow"]) for e in config["licenses"].get("exceptions", [])}
    registries = {f"registry+{url}" for url in config["sources"]["allow-registry"]}
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version", "1", "--locked"], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE
        ).stdout
    )
    problems = []
    for package in metadata["packages"]:
        name = f"{package['name']} {package['version']}"
        source, expression = package["source"], package["license"]
        if source is not None and source not in registries:
            problems.append(f"{name}: its source {source} is not allowed")
        if expression is None:
            problems.append(f"{name}: its manifest names no licence")
        else:
            try:
                if not permitted(expression, allowed | exceptions.get(package["name"], set())):
                    problems.append(f"{name}: the licence {expression} is not allowed")
            except ValueError as error:
                problems.append(f"{name}: the licence {expression!r} can't be read: {error}")
        if source is None:
            # One of ours. Path dependencies of packages that are not published need no version.
            problems += [
                f"{name}: the dependency {dependency['name']} has a wildcard version"
                for dependency in package["dependencies"]
                if dependency["req"] == "*" and "path" not in dependency
            ]
    for problem in problems:
        print(f"dependencies: {problem}", file=sys.stderr)
    if problems:
        print("dependencies: drop the crate, or allow it in deny.toml and say why", file=sys.stderr)
        return 1
    print(f"dependencies: {len(metadata['packages'])} packages are within deny.toml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
