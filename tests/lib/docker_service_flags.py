#!/usr/bin/env python3
"""Every flag that `docker service create --help` lists, one by one, against shoal: the flag arrives in the service
as inspected, or it is refused by name. A flag this table does not know fails the test: none may be ignored.
usage: docker_service_flags.py unix://SOCKET IMAGE   (network n, secret s and config c must exist)"""
import json
import re
import subprocess
import sys

host, image = sys.argv[1:]


def docker(*args):
    r = subprocess.run(["docker", "-H", host, *args], capture_output=True, text=True, timeout=60)
    return r.returncode, r.stdout, r.stderr


def get(value, path):
    for key in path.split("."):
        value = value[int(key)] if isinstance(value, list) else value.get(key) if value else None
    return value


S, MIN = 10**9, 60 * 10**9
T, K = "TaskTemplate.", "TaskTemplate.ContainerSpec."
# flag: (arguments, path in Spec, value there) or (arguments, text of the refusal)
FLAGS = {
    "config": (["--config", "source=c,target=/x,mode=0400"], K + "Configs.0.File.Name", "/x"),
    "constraint": (["--constraint", "node.role==manager"], T + "Placement.Constraints", ["node.role==manager"]),
    "container-label": (["--container-label", "a=b"], K + "Labels", {"a": "b"}),
    "credential-spec": (["--credential-spec", "file://x"], "CredentialSpec"),
    "detach": ([], "Name", None),
    "dns": (["--dns", "1.1.1.1"], K + "DNSConfig.Nameservers", ["1.1.1.1"]),
    "dns-option": (["--dns-option", "ndots:3"], K + "DNSConfig.Options", ["ndots:3"]),
    "dns-search": (["--dns-search", "a.b"], K + "DNSConfig.Search", ["a.b"]),
    "endpoint-mode": (["--endpoint-mode", "dnsrr"], "EndpointSpec.Mode", "dnsrr"),
    "entrypoint": (["--entrypoint", "/bin/a b"], K + "Command", ["/bin/a", "b"]),
    "env": (["--env", "A=b"], K + "Env", ["A=b"]),
    "env-file": (["--env-file", "/dev/null", "--env", "A=b"], K + "Env", ["A=b"]),
    "generic-resource": (["--generic-resource", "gpu=2"], "GenericResources"),
    "group": (["--group", "audio"], K + "Groups", ["audio"]),
    "health-cmd": (["--health-cmd", "true"], K + "Healthcheck.Test", ["CMD-SHELL", "true"]),
    "health-interval": (["--health-interval", "2s"], K + "Healthcheck.Interval", 2 * S),
    "health-retries": (["--health-retries", "2"], K + "Healthcheck.Retries", 2),
    "health-start-interval": (["--health-start-interval", "2s"], K + "Healthcheck.StartInterval", 2 * S),
    "health-start-period": (["--health-start-period", "2s", "--health-interval", "2s"], K + "Healthcheck.StartPeriod", 2 * S),
    "health-timeout": (["--health-timeout", "2s"], K + "Healthcheck.Timeout", 2 * S),
    "help": ([], "Name", None),
    "host": (["--host", "a:10.0.0.1"], K + "Hosts", ["10.0.0.1 a"]),
    "hostname": (["--hostname", "h"], K + "Hostname", "h"),
    "init": (["--init"], K + "Init", True),
    "isolation": (["--isolation", "process"], "Isolation"),
    "label": (["--label", "a=b"], "Labels", {"a": "b"}),
    "limit-cpu": (["--limit-cpu", "0.5"], T + "Resources.Limits.NanoCPUs", S // 2),
    "limit-memory": (["--limit-memory", "64m"], T + "Resources.Limits.MemoryBytes", 64 << 20),
    "limit-pids": (["--limit-pids", "50"], T + "Resources.Limits.Pids", 50),
    "log-driver": (["--log-driver", "json-file"], T + "LogDriver.Name", "json-file"),
    "log-opt": (["--log-driver", "json-file", "--log-opt", "max-file=3"], T + "LogDriver.Options", {"max-file": "3"}),
    "max-concurrent": (["--mode", "replicated-job", "--max-concurrent", "1"], "[Jj]ob"),
    "mode": (["--mode", "global"], "Mode", {"Global": {}}),
    "mount": (["--mount", "type=volume,source=v,target=/v,readonly"], K + "Mounts.0.ReadOnly", True),
    "name": (["--name", "flag"], "Name", "flag"),
    "network": (["--network", "name=n,alias=x"], T + "Networks.0.Aliases", ["x"]),
    "no-healthcheck": (["--no-healthcheck"], K + "Healthcheck.Test", ["NONE"]),
    "no-resolve-image": ([], "Name", None),
    "oom-score-adj": (["--oom-score-adj", "100"], K + "OomScoreAdj", 100),
    "placement-pref": (["--placement-pref", "spread=node.labels.z"], T + "Placement.Preferences.0.Spread.SpreadDescriptor", "node.labels.z"),
    "publish": (["--publish", "published=81,target=80,mode=host"], "EndpointSpec.Ports.0.PublishMode", "host"),
    "quiet": (["--quiet"], "Name", None),
    "read-only": (["--read-only"], K + "ReadOnly", True),
    "replicas": (["--replicas", "0"], "Mode.Replicated.Replicas", 0),
    "replicas-max-per-node": (["--replicas-max-per-node", "2"], T + "Placement.MaxReplicas", 2),
    "reserve-cpu": (["--reserve-cpu", "0.5"], T + "Resources.Reservations.NanoCPUs", S // 2),
    "reserve-memory": (["--reserve-memory", "64m"], T + "Resources.Reservations.MemoryBytes", 64 << 20),
    "restart-condition": (["--restart-condition", "none"], T + "RestartPolicy.Condition", "none"),
    "restart-delay": (["--restart-delay", "0s"], T + "RestartPolicy.Delay", 0),
    "restart-max-attempts": (["--restart-max-attempts", "4"], T + "RestartPolicy.MaxAttempts", 4),
    "restart-window": (["--restart-window", "1m"], T + "RestartPolicy.Window", MIN),
    "rollback-delay": (["--rollback-delay", "1m"], "RollbackConfig.Delay", MIN),
    "rollback-failure-action": (["--rollback-failure-action", "continue"], "RollbackConfig.FailureAction", "continue"),
    "rollback-max-failure-ratio": (["--rollback-max-failure-ratio", "0.25"], "RollbackConfig.MaxFailureRatio", 0.25),
    "rollback-monitor": (["--rollback-monitor", "1m"], "RollbackConfig.Monitor", MIN),
    "rollback-order": (["--rollback-order", "start-first"], "RollbackConfig.Order", "start-first"),
    "rollback-parallelism": (["--rollback-parallelism", "3"], "RollbackConfig.Parallelism", 3),
    "secret": (["--secret", "source=s,target=x,mode=0400"], K + "Secrets.0.File.Name", "x"),
    "stop-grace-period": (["--stop-grace-period", "1m"], K + "StopGracePeriod", MIN),
    "stop-signal": (["--stop-signal", "SIGINT"], K + "StopSignal", "SIGINT"),
    "sysctl": (["--sysctl", "net.ipv4.ip_forward=1"], K + "Sysctls", {"net.ipv4.ip_forward": "1"}),
    "tty": (["--tty"], K + "TTY", True),
    "ulimit": (["--ulimit", "nofile=10:20"], K + "Ulimits.0", {"Name": "nofile", "Soft": 10, "Hard": 20}),
    "update-delay": (["--update-delay", "1m"], "UpdateConfig.Delay", MIN),
    "update-failure-action": (["--update-failure-action", "rollback"], "UpdateConfig.FailureAction", "rollback"),
    "update-max-failure-ratio": (["--update-max-failure-ratio", "0.25"], "UpdateConfig.MaxFailureRatio", 0.25),
    "update-monitor": (["--update-monitor", "1m"], "UpdateConfig.Monitor", MIN),
    "update-order": (["--update-order", "start-first"], "UpdateConfig.Order", "start-first"),
    "update-parallelism": (["--update-parallelism", "3"], "UpdateConfig.Parallelism", 3),
    "user": (["--user", "1:2"], K + "User", "1:2"),
    "with-registry-auth": ([], "Name", None),
    "workdir": (["--workdir", "/w"], K + "Dir", "/w"),
    "cap-add": (["--cap-add", "NET_ADMIN"], K + "CapabilityAdd", ["CAP_NET_ADMIN"]),
    "cap-drop": (["--cap-drop", "CHOWN"], K + "CapabilityDrop", ["CAP_CHOWN"]),
}

listed = re.findall(r"^ +(?:-\w, )?--([a-z-]+)", docker("service", "create", "--help")[1], re.M)
failed = []
for flag in listed:
    if flag not in FLAGS:
        failed.append(f"--{flag}: docker knows it and this test does not")
        continue
    args, *want = FLAGS[flag]
    name = [] if flag == "name" else ["--name", "flag"]
    mode = [] if "--mode" in args or "--replicas" in args else ["--replicas", "0"]
    if flag == "mode":
        args = [*args, "--constraint", "node.labels.none==x"]
    command = ["service", "create", "--detach", *(["--no-resolve-image"]), *name, *mode, *args, image, "sleep", "1000"]
    status, out, err = docker(*command)
    if len(want) == 1:
        if status == 0 or not re.search(want[0], err):
            failed.append(f"--{flag} must be refused by name: {status} {out}{err}")
    elif status != 0:
        failed.append(f"--{flag}: {err.strip()}")
    elif want[1] is not None:
        spec = json.loads(docker("service", "inspect", "flag")[1])[0]["Spec"]
        if get(spec, want[0]) != want[1]:
            failed.append(f"--{flag}: {want[0]} is {get(spec, want[0])}, not {want[1]}")
    docker("service", "rm", "flag")
print(f"{len(listed)} flags, {len(failed)} wrong")
print("\n".join(failed))
sys.exit(bool(failed))
