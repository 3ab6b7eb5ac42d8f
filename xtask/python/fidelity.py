"""Runs tests of moto's own against the lab's AWS, by its names and over TLS: `fidelity.py OUT TEST...`, in moto's folder.

OUT gets a JSON line for each test: its name, how it ended, and the last of what it said. The tests are as they are; moto's
"server mode" gives them clients with an endpoint of their own, which is what is left out here: nothing is configured but
the region.
"""

import json
import os
import sys

MOTO = "http://127.0.0.1:4566"
os.environ["TEST_SERVER_MODE"] = "true"
os.environ["TEST_SERVER_MODE_ENDPOINT"] = MOTO
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

import pytest
from moto.core import models
from moto.core.config import default_user_config

# The agents' own: the key of the lab, or the placeholder that the metadata service has.
default_user_config["core"]["mock_credentials"] = False
default_user_config["core"]["reset_boto3_session"] = False


def begin(self, reset=True):
    if self.__class__._nested_count == 1 and reset:
        self.reset()


models.ServerModeMockAWS._enable_patching = begin
models.ServerModeMockAWS._disable_patching = lambda self, remove_data: None


class Told:
    def __init__(self, path):
        self.out = open(path, "a", buffering=1)
        self.ended = {}

    def pytest_runtest_logreport(self, report):
        before = self.ended.get(report.nodeid, ("passed", ""))
        if report.when == "setup" or before[0] == "passed":
            said = str(report.longrepr).strip().splitlines()[-1:] if report.failed else []
            self.ended[report.nodeid] = (report.outcome, "".join(said)[:300])
        if report.when == "teardown":
            ended, why = self.ended.pop(report.nodeid)
            self.out.write(json.dumps({"test": report.nodeid, "ended": ended, "why": why}) + "\n")


out, *tests = sys.argv[1:]
options = ["-qq", "-p", "no:cacheprovider", "-p", "no:warnings", "--no-header", "--tb=line"]
sys.exit(0 if pytest.main([*options, *tests], plugins=[Told(out)]) in (0, 1) else 1)
