"""The chart, through real Helm: linted, rendered with every set of values, held against the
Kubernetes schemas (strict: an unknown field fails) and against what the design says of security,
draining and who may call whom. Prints one line a part; any finding fails.

Not done here: applying it to an API server. Custom resources of others (ServiceMonitor) have no
schema among Kubernetes' own; they are checked for shape below.
"""

import ipaddress
import pathlib
import sys

import helm_python as helm
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "trunkline"
# The oldest that Chart.yaml admits, and the newest there is a schema for.
KUBERNETES = ["1.27", kubernetes_validate.latest_version()]
NAMESPACE = "mesh"
ROLES = {"gateway", "intent", "routing", "callback", "outcomes"}

# The design's table, written a second time on purpose: the templates must agree with it.
MAY_CALL = {
    ("gateway", "intent"),
    ("gateway", "routing"),
    ("gateway", "callback"),
    ("callback", "routing"),
}
MAY_USE = {
    "gateway": set(),
    "intent": set(),
    "routing": {"routingRedis"},
    "callback": {"callbackRedis"},
    "outcomes": {"routingRedis", "kafka"},
}
FOREIGN = {"monitoring.coreos.com/v1"}

findings: list[str] = []


def expect(holds: bool, where: str, what: str) -> None:
    """Notes a finding; the run goes on, so that one run shows all of them."""
    if not holds:
        findings.append(f"{where}: {what}")


def render(values: dict) -> list[dict]:
    with helm.Chart.load(str(CHART)) as chart:
        files = chart.render(values, name="check", namespace=NAMESPACE)
    documents = []
    for path, text in files.items():
        if path.endswith((".yaml", ".yml")):
            documents += [document for document in yaml.safe_load_all(text) if document]
    return documents


def value_sets() -> dict[str, dict]:
    sets = {"default values": {}}
    for path in sorted((CHART / "ci").glob("*.yaml")):
        sets[path.name] = yaml.safe_load(path.read_text()) or {}
    documents = {path.name: path.read_text() for path in sorted((ROOT / "deploy" / "policy").glob("*.yaml"))}
    sets["deploy/policy"] = {"policy": {"documents": documents}}
    return sets


def lint(name: str, values: dict) -> None:
    report = helm.lint(str(CHART), values, strict=True, kube_version="v" + KUBERNETES[0] + ".0")
    for error in report["errors"]:
        findings.append(f"lint, {name}: {error}")
    for message in report["messages"]:
        # 1 is information: "icon is recommended".
        if message["severity"] > 1:
            findings.append(f"lint, {name}: {message['path']}: {message['error']}")


def validate(name: str, documents: list[dict]) -> int:
    for document in documents:
        where = f"{name}, {document['kind']}/{document['metadata']['name']}"
        if document["apiVersion"] in FOREIGN:
            expect(document["kind"] == "ServiceMonitor", where, "an unknown foreign kind")
            expect(document["spec"]["endpoints"][0]["port"] == "admin", where, "scrapes another port than admin")
            continue
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except Exception as error:  # noqa: BLE001 the package raises several kinds, none with a common base
                findings.append(f"{where}, Kubernetes {version}: {str(error).splitlines()[0]}")
    return len(documents)


def of_kind(documents: list[dict], kind: str) -> dict[str, dict]:
    return {d["metadata"]["name"]: d for d in documents if d["kind"] == kind}


def component(labels: dict) -> str | None:
    return labels.get("app.kubernetes.io/component")


def check_workloads(name: str, documents: list[dict]) -> None:
    deployments = of_kind(documents, "Deployment")
    accounts = of_kind(documents, "ServiceAccount")
    expect({component(d["metadata"]["labels"]) for d in deployments.values()} == ROLES, name, "not one workload a role")
    for workload, deployment in deployments.items():
        where = f"{name}, {workload}"
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        security = container["securityContext"]
        environment = {entry["name"]: entry for entry in container["env"]}
        expect(len(environment) == len(container["env"]), where, "a variable is set twice")
        expect(container["args"] == [component(deployment["metadata"]["labels"])], where, "runs another role than its own")
        expect(security["capabilities"] == {"drop": ["ALL"]}, where, "keeps capabilities")
        expect(security["readOnlyRootFilesystem"] is True, where, "the root file system is writable")
        expect(security["allowPrivilegeEscalation"] is False, where, "may gain privileges")
        expect(pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0, where, "may be root")
        expect(pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where, "no seccomp profile")
        expect(pod["automountServiceAccountToken"] is False, where, "mounts a token")
        expect(accounts[pod["serviceAccountName"]]["automountServiceAccountToken"] is False, where, "its account mounts a token")
        expect("memory" in container["resources"]["limits"], where, "no memory limit")
        expect("cpu" not in container["resources"].get("limits", {}), where, "a CPU limit stalls streams at every burst")
        for probe, path in [("startupProbe", "/live"), ("livenessProbe", "/live"), ("readinessProbe", "/ready")]:
            expect(container[probe]["httpGet"] == {"path": path, "port": "admin"}, where, f"{probe} is not {path} on the admin port")
        drain_ms = int(environment["TRUNKLINE_DRAIN_DELAY_MS"]["value"]) + 2 * int(environment["TRUNKLINE_DRAIN_TIMEOUT_MS"]["value"])
        grace_s = pod["terminationGracePeriodSeconds"]
        expect(drain_ms / 1000 + 5 <= grace_s <= drain_ms / 1000 + 6, where, f"{grace_s} s of grace for {drain_ms} ms of draining and 5 s")
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for variable, port in [("TRUNKLINE_LISTEN", "grpc"), ("TRUNKLINE_ADMIN_LISTEN", "admin")]:
            expect(environment[variable]["value"] == f"0.0.0.0:{ports[port]}", where, f"{variable} is not the {port} port")
        mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
        expect(mounts == {volume["name"] for volume in pod.get("volumes", [])}, where, "volumes and mounts differ")
        for variable, entry in environment.items():
            secret = any(word in variable for word in ("KEYS", "_KEY", "REDIS_URL")) and variable not in ("TRUNKLINE_TLS_KEY", "TRUNKLINE_KEY_PREFIX")
            expect(not secret or "secretKeyRef" in entry.get("valueFrom", {}), where, f"{variable} is not from a Secret")
    check_selectors(name, documents, deployments)


def check_selectors(name: str, documents: list[dict], deployments: dict[str, dict]) -> None:
    pods = [d["spec"]["template"]["metadata"]["labels"] for d in deployments.values()]

    def selected(selector: dict) -> int:
        return sum(all(labels.get(key) == value for key, value in selector.items()) for labels in pods)

    for service, document in of_kind(documents, "Service").items():
        expect(selected(document["spec"]["selector"]) == 1, f"{name}, Service/{service}", "does not select exactly one workload")
        headless = document["spec"].get("clusterIP") == "None"
        expect(headless or document["spec"].get("type") == "LoadBalancer", f"{name}, Service/{service}", "pins streams to one replica")
    budgets = of_kind(documents, "PodDisruptionBudget")
    expect(set(budgets) == set(deployments), name, "not one disruption budget a workload")
    for budget, document in budgets.items():
        expect(selected(document["spec"]["selector"]["matchLabels"]) == 1, f"{name}, budget {budget}", "does not select exactly one workload")
        expect(document["spec"].get("maxUnavailable") == 1, f"{name}, budget {budget}", "would block every node drain, or allow two at once")
    for scaler, document in of_kind(documents, "HorizontalPodAutoscaler").items():
        where = f"{name}, scaler {scaler}"
        target = deployments.get(document["spec"]["scaleTargetRef"]["name"])
        expect(target is not None, where, "scales nothing")
        expect(target is None or "replicas" not in target["spec"], where, "every upgrade would reset the count")
        expect(document["spec"]["minReplicas"] <= document["spec"]["maxReplicas"], where, "least above most")


def edges(policies: dict[str, dict], direction: str, peers: str) -> set[tuple[str, str]]:
    """(caller, called) pairs among roles that one side of the policies admits, on the gRPC port."""
    found = set()
    for policy in policies.values():
        own = component(policy["spec"]["podSelector"]["matchLabels"])
        for rule in policy["spec"].get(direction) or []:
            for peer in rule[peers]:
                other = component((peer.get("podSelector") or {}).get("matchLabels", {}))
                if other in ROLES:
                    found.add((other, own) if direction == "ingress" else (own, other))
    return found


def check_policies(name: str, documents: list[dict], values: dict) -> None:
    policies = of_kind(documents, "NetworkPolicy")
    if not values["networkPolicy"]["enabled"]:
        expect(not policies, name, "policies although they are off")
        return
    expect(len(policies) == len(ROLES), name, "not one network policy a role")
    for direction, peers in [("ingress", "from"), ("egress", "to")]:
        found = edges(policies, direction, peers)
        expect(found == MAY_CALL, name, f"{direction}: too many {sorted(found - MAY_CALL)}, missing {sorted(MAY_CALL - found)}")
    for policy, document in policies.items():
        where = f"{name}, policy {policy}"
        role = component(document["spec"]["podSelector"]["matchLabels"])
        spec = document["spec"]
        expect(sorted(spec["policyTypes"]) == ["Egress", "Ingress"], where, "one direction is open")
        for rule in (spec["ingress"] or []) + spec["egress"]:
            expect(bool(rule.get("from") or rule.get("to")), where, "a rule without peers admits everyone")
            expect(bool(rule.get("ports")), where, "a rule without ports admits every port")
        uses = {
            store
            for store in ("routingRedis", "callbackRedis", "kafka")
            if any(
                rule["to"] == values["networkPolicy"][store]["peers"] and rule["ports"][0]["port"] == values["networkPolicy"][store]["port"]
                for rule in spec["egress"]
            )
        }
        expect(uses == MAY_USE[role], where, f"stores {sorted(uses)}, the design says {sorted(MAY_USE[role])}")
        outside = {peer["ipBlock"]["cidr"] for rule in spec["ingress"] or [] for peer in rule["from"] if "ipBlock" in peer}
        expected = set(values["networkPolicy"]["switchCidrs"]) if role == "gateway" else set()
        expect(outside == expected, where, f"admits addresses {sorted(outside)}")
        for cidr in outside:
            expect(ipaddress.ip_network(cidr).prefixlen > 0, where, f"{cidr} is everybody")


def check_documents(name: str, documents: list[dict], values: dict) -> None:
    """Policy reaches the pods as it was written."""
    given = values["policy"]["documents"]
    mounted = {}
    for config in of_kind(documents, "ConfigMap").values():
        mounted |= config["data"]
    expect(set(mounted) == set(given), name, f"documents given {sorted(given)}, mounted {sorted(mounted)}")
    for file, text in given.items():
        same = yaml_documents(mounted.get(file, "")) == yaml_documents(text)
        expect(same, name, f"{file} is not mounted as it was given")


def yaml_documents(text: str) -> list:
    return list(yaml.safe_load_all(text))


def check_schema_refuses() -> int:
    """A schema that refuses nothing would pass everything above."""
    bad = {
        "a name that is not there": {"gatewey": {"replicas": 3}},
        "a nested one": {"routing": {"leaseSeconds": 2}},
        "no replicas": {"callback": {"replicas": 0}},
        "a number as text": {"intent": {"replicas": "two"}},
        "a drain beyond the option's limit": {"outcomes": {"drain": {"delayMs": 60001}}},
        "an unknown pull policy": {"image": {"pullPolicy": "Sometimes"}},
        "a broker without a port": {"kafka": {"brokers": "kafka"}},
        "a ratio above one": {"otlp": {"traceRatio": 2}},
        "braces in the key prefix": {"redis": {"keyPrefix": "a{b}"}},
        "an empty peer, which is everybody": {"networkPolicy": {"prometheus": [{}]}},
    }
    for what, values in bad.items():
        try:
            render(values)
        except helm.HelmError:
            continue
        findings.append(f"values.schema.json accepts {what}: {values}")
    return len(bad)


def main() -> int:
    sets = value_sets()
    for name, values in sets.items():
        lint(name, values)
        documents = render(values)
        count = validate(name, documents)
        with helm.Chart.load(str(CHART)) as chart:
            merged = chart.merge_values(values)
        check_workloads(name, documents)
        check_policies(name, documents, merged)
        check_documents(name, documents, merged)
        print(f"chart: {name}: {count} objects against Kubernetes {' and '.join(KUBERNETES)}")
    print(f"chart: the schema is tried with {check_schema_refuses()} bad values")
    for finding in findings:
        print(f"chart: {finding}", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
