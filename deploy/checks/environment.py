"""The options of each role against the chart and the compose file: environment.py BINARY.

A variable that a role does not have is set to no effect, so every one that the chart or the compose
file sets must be in `trunkline ROLE --help`; and what only the installation can know must be set.
Then each role is started with exactly the chart's variables (addresses replaced by loopback ones
that nobody answers on): it must serve, and end with status 0 on SIGTERM.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import helm_python as helm
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLES = ["gateway", "intent", "routing", "callback", "outcomes"]
# Have no default that is right in an installation: whichever role has the option, the chart sets it.
INSTALLATION = {
    "TRUNKLINE_ADMIN_LISTEN", "TRUNKLINE_ADVERTISE", "TRUNKLINE_CALLBACK_ENDPOINTS", "TRUNKLINE_CONTACT_KEY",
    "TRUNKLINE_DRAIN_DELAY_MS", "TRUNKLINE_DRAIN_TIMEOUT_MS", "TRUNKLINE_INSTANCE", "TRUNKLINE_INTENT_ENDPOINTS",
    "TRUNKLINE_KAFKA_BROKERS", "TRUNKLINE_KEY_PREFIX", "TRUNKLINE_LISTEN", "TRUNKLINE_LOG", "TRUNKLINE_NUMBER_KEYS",
    "TRUNKLINE_OTLP_ENDPOINT", "TRUNKLINE_POLICY_DIR", "TRUNKLINE_PSEUDONYM_KEYS", "TRUNKLINE_REDIS_URL",
    "TRUNKLINE_ROUTING_ENDPOINTS", "TRUNKLINE_TLS_CA", "TRUNKLINE_TLS_CERT", "TRUNKLINE_TLS_KEY",
    "TRUNKLINE_TRACE_RATIO",
}
START_LIMIT_S = 30
DRAIN_LIMIT_S = 30

findings: list[str] = []


def clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("TRUNKLINE_")}


def options(binary: str, role: str) -> set[str]:
    shown = subprocess.run([binary, role, "--help"], env=clean_environment(), capture_output=True, text=True, check=True)
    return set(re.findall(r"\[env: (TRUNKLINE_[A-Z0-9_]+)", shown.stdout))


def chart_environment(values: dict) -> dict[str, dict[str, dict]]:
    with helm.Chart.load(str(ROOT / "charts" / "trunkline")) as chart:
        files = chart.render(values, name="check", namespace="mesh")
    found = {}
    for path, text in files.items():
        for document in yaml.safe_load_all(text) if path.endswith(".yaml") else []:
            if document and document["kind"] == "Deployment":
                (container,) = document["spec"]["template"]["spec"]["containers"]
                found[container["name"]] = {entry["name"]: entry for entry in container["env"]}
    return found


def compare(binary: str) -> None:
    everything_on = yaml.safe_load((ROOT / "charts" / "trunkline" / "ci" / "production.yaml").read_text())
    chart = chart_environment(everything_on)
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    # The image's variables go to whichever role runs; each must be an option of some role.
    image = set(re.findall(r"\b(TRUNKLINE_[A-Z_]+)=", (ROOT / "deploy" / "Dockerfile").read_text()))
    for role in ROLES:
        known = options(binary, role)
        image -= known
        if not known:
            findings.append(f"{role}: --help shows no option with a variable")
        for where, names in [("the chart", chart[role]), ("compose.yaml", compose[role].get("environment") or {})]:
            for name in sorted(names):
                if name.startswith("TRUNKLINE_") and name not in known:
                    findings.append(f"{role}: {where} sets {name}, which `trunkline {role}` does not have")
        for name in sorted((known & INSTALLATION) - set(chart[role])):
            findings.append(f"{role}: the chart does not set {name}")
        own = sum(name.startswith("TRUNKLINE_") for name in chart[role])
        print(f"environment: {role}: {len(known)} options, the chart sets {own}")
    for name in sorted(image):
        findings.append(f"the image sets {name}, which no role has")


def value_for(entry: dict, policy: str) -> str:
    """What the kubelet would put in, with stand-ins for Secrets and addresses."""
    name = entry["name"]
    if name.endswith("LISTEN"):
        return "127.0.0.1:0"
    if name.endswith("_ENDPOINTS") or name.endswith("_BROKERS"):
        return "127.0.0.1:1"
    if name == "TRUNKLINE_POLICY_DIR":
        return policy
    source = entry.get("valueFrom", {})
    if "fieldRef" in source:
        return "127.0.0.1" if source["fieldRef"]["fieldPath"] == "status.podIP" else "check-0"
    if "secretKeyRef" in source:
        if name.endswith("_URL"):
            return "redis://127.0.0.1:1/"
        return ("1:" if name.endswith("_KEYS") else "") + "ab" * 32
    return entry["value"]


def start(binary: str, role: str, entries: dict[str, dict], policy: str) -> None:
    environment = clean_environment()
    for name, entry in entries.items():
        environment[name] = re.sub(r"\$\(([A-Z_]+)\)", lambda match: environment.get(match.group(1), match.group(0)), value_for(entry, policy))
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([binary, role], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            serving = wait_until_serving(process, log)
            if not serving:
                log.seek(0)
                findings.append(f"{role}: does not serve with the chart's variables: {log.read()[-800:].strip()}")
                return
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            status = process.wait(DRAIN_LIMIT_S)
            if status != 0:
                log.seek(0)
                findings.append(f"{role}: ends with status {status} on SIGTERM: {log.read()[-800:].strip()}")
            else:
                print(f"environment: {role}: served with the chart's variables, drained in {time.monotonic() - began:.1f} s")
        except subprocess.TimeoutExpired:
            findings.append(f"{role}: still runs {DRAIN_LIMIT_S} s after SIGTERM")
        finally:
            process.kill()
            process.wait()


def wait_until_serving(process: subprocess.Popen, log) -> bool:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        log.seek(0)
        for line in log:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if "serving" in (record.get("message"), record.get("fields", {}).get("message")):
                return True
        time.sleep(0.05)
    return False


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    binary = str(pathlib.Path(arguments[0]).resolve())
    compare(binary)
    # A short drain, so that the check is quick; the default's length is the chart's matter.
    quick = {role: {"drain": {"delayMs": 100, "timeoutMs": 5000}} for role in ROLES}
    policy = ROOT / "deploy" / "policy"
    plain = chart_environment({"tls": {"enabled": False}, "policy": {"documents": {"any.yaml": ""}}, **quick})
    for role in ROLES:
        start(binary, role, plain[role], str(policy))
    for finding in findings:
        print(f"environment: {finding}", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
