"""Speaks to a container runtime as a kubelet does, by the CRI (runtime.v1, kubernetes/cri-api, api.proto): SOCKET METHOD
REQUEST, the request in JSON by the protocol's names. Prints what is answered, as JSON.

gRPC over HTTP/2 is curl's; of protocol buffers, as much as these messages need."""

import json
import subprocess
import sys
import tempfile

TEXT, NUMBER, TEXTS, PAIRS = "text", "number", "texts", "pairs"
# Each message's fields: name, number, and what it is: another message, in a list if there are many.
MESSAGES = {
    "RunPodSandboxRequest": {"config": (1, "PodSandboxConfig"), "runtime_handler": (2, TEXT)},
    "RunPodSandboxResponse": {"pod_sandbox_id": (1, TEXT)},
    "CreateContainerRequest": {
        "pod_sandbox_id": (1, TEXT), "config": (2, "ContainerConfig"), "sandbox_config": (3, "PodSandboxConfig"),
    },
    "CreateContainerResponse": {"container_id": (1, TEXT)},
    "StartContainerRequest": {"container_id": (1, TEXT)},
    "StartContainerResponse": {},
    "ExecSyncRequest": {"container_id": (1, TEXT), "cmd": (2, TEXTS), "timeout": (3, NUMBER)},
    "ExecSyncResponse": {"stdout": (1, TEXT), "stderr": (2, TEXT), "exit_code": (3, NUMBER)},
    "StopPodSandboxRequest": {"pod_sandbox_id": (1, TEXT)},
    "StopPodSandboxResponse": {},
    "RemovePodSandboxRequest": {"pod_sandbox_id": (1, TEXT)},
    "RemovePodSandboxResponse": {},
    "PodSandboxConfig": {
        "metadata": (1, "Metadata"), "hostname": (2, TEXT), "log_directory": (3, TEXT), "labels": (6, PAIRS),
        "annotations": (7, PAIRS), "linux": (8, "LinuxPodSandboxConfig"),
    },
    # Of a pod; a container's has its attempt in the place of the uid, and here none.
    "Metadata": {"name": (1, TEXT), "uid": (2, TEXT), "namespace": (3, TEXT)},
    "LinuxPodSandboxConfig": {"cgroup_parent": (1, TEXT)},
    "ContainerConfig": {
        "metadata": (1, "Metadata"), "image": (2, "ImageSpec"), "command": (3, TEXTS), "envs": (6, ["KeyValue"]),
        "mounts": (7, ["Mount"]), "labels": (9, PAIRS), "annotations": (10, PAIRS), "log_path": (11, TEXT),
    },
    "ImageSpec": {"image": (1, TEXT)},
    "KeyValue": {"key": (1, TEXT), "value": (2, TEXT)},
    "Mount": {"container_path": (1, TEXT), "host_path": (2, TEXT), "readonly": (3, NUMBER)},
}


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def encode(message, value):
    out = b""
    for name, one in value.items():
        number, kind = MESSAGES[message][name]
        if kind == NUMBER:
            out += varint(number << 3) + varint(int(one))
            continue
        if kind == TEXT:
            parts = [one.encode()]
        elif kind == TEXTS:
            parts = [text.encode() for text in one]
        elif kind == PAIRS:
            parts = [encode("KeyValue", {"key": key, "value": text}) for key, text in one.items()]
        else:
            parts = [encode(kind[0], part) for part in one] if isinstance(kind, list) else [encode(kind, one)]
        for part in parts:
            out += varint(number << 3 | 2) + varint(len(part)) + part
    return out


def read_varint(data, at):
    number = shift = 0
    while True:
        byte = data[at]
        number, shift, at = number | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return number, at


def decode(message, data):
    names = {number: name for name, (number, _) in MESSAGES[message].items()}
    value, at = {}, 0
    while at < len(data):
        key, at = read_varint(data, at)
        number, at = read_varint(data, at)
        if key & 7 == 2:
            number, at = data[at : at + number].decode(), at + number
        value[names.get(key >> 3, key >> 3)] = number
    return value


def call(socket, method, request):
    body = encode(method + "Request", request)
    with tempfile.NamedTemporaryFile() as answer:
        curl = ["curl", "-sS", "--http2-prior-knowledge", "--unix-socket", socket, "-D", "-", "-o", answer.name]
        curl += ["-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", "@-"]
        curl += ["http://localhost/runtime.v1.RuntimeService/" + method]
        message = b"\0" + len(body).to_bytes(4, "big") + body
        headers = subprocess.run(curl, input=message, stdout=subprocess.PIPE, check=True).stdout.decode()
        data = answer.read()
    if "grpc-status: 0" not in headers:
        sys.exit(f"{method}: {headers}")
    return decode(method + "Response", data[5 : 5 + int.from_bytes(data[1:5], "big")])


print(json.dumps(call(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))))
