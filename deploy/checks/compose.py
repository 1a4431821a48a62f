"""deploy/compose.yaml against the Compose specification, and against what its roles are.

The specification's own parser refuses what it cannot read; a key that it silently drops is found by
reading the file back. Not done here: starting it (no container engine on build machines).
"""

import pathlib
import re
import sys

import compose_spec
import yaml

PATH = pathlib.Path(__file__).resolve().parents[1] / "compose.yaml"
ROLES = {"gateway", "intent", "routing", "callback", "outcomes"}

findings: list[str] = []


def expect(holds: bool, where: str, what: str) -> None:
    if not holds:
        findings.append(f"{where}: {what}")


def main() -> int:
    text = PATH.read_text()
    # YAML merges (<<) are resolved here; the parser sees plain mappings.
    document = yaml.safe_load(text)
    try:
        parsed = compose_spec.PyCompose.from_yaml(yaml.safe_dump(document))
        parsed.validate()
    except ValueError as error:
        print(f"compose: {error}", file=sys.stderr)
        return 1
    understood = parsed.to_dict()
    for name, service in document["services"].items():
        dropped = set(service) - set(understood["services"][name])
        expect(not dropped, name, f"keys that Compose does not know: {sorted(dropped)}")

    services = document["services"]
    expect(ROLES <= set(services), "compose", f"roles missing: {sorted(ROLES - set(services))}")
    for role in sorted(ROLES & set(services)):
        service = services[role]
        expect(service["command"] == [role], role, "runs another role than its own")
        expect(service.get("read_only") is True and service.get("cap_drop") == ["ALL"], role, "is not hardened")
        expect("healthcheck" in service, role, "has no health check")
        for port in service.get("ports", []):
            expect(port.startswith("127.0.0.1:"), role, f"publishes {port} beyond loopback, and there is no TLS here")
        reachable = set(service["networks"])
        for variable, value in (service.get("environment") or {}).items():
            for host in re.findall(r"(?:^|//|,)([a-z-]+):\d+", str(value)):
                expect(host in services, role, f"{variable} names {host}, which is no service")
                shared = reachable & set(services.get(host, {}).get("networks", []))
                expect(bool(shared), role, f"{variable} names {host}, on no network of its own")
    published = [port.rsplit(":", 1)[0] for service in services.values() for port in service.get("ports", [])]
    expect(len(published) == len(set(published)), "compose", "one host port is published twice")
    command = services["redis-callback"]["command"]
    expect(command[command.index("--appendfsync") + 1] == "always", "redis-callback", "an accepted callback would not be on disk")

    for finding in findings:
        print(f"compose: {finding}", file=sys.stderr)
    if not findings:
        print(f"compose: {len(services)} services, nothing found")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
