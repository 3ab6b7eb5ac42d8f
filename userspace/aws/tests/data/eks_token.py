"""Makes eks_token.txt: what `aws eks get-token --cluster-name prod` makes with the tests' placeholder on 2025-06-01 at 12:00:00 UTC.

    python3 eks_token.py > eks_token.txt   (awscli 1.46)
"""

import datetime
from unittest import mock

import botocore.auth
import botocore.session
from awscli.customizations.eks.get_token import STSClientFactory, TokenGenerator

NOW = datetime.datetime(2025, 6, 1, 12)

session = botocore.session.get_session()
session.set_credentials("ASIAQWERTYUIOPASDFGH", "secret", "chaperone/x/token")
with mock.patch.object(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: NOW):
    client = STSClientFactory(session).get_sts_client(region_name="eu-west-1")
    print(TokenGenerator(client).get_token("prod"))
