# For each library that this Python has: would its call to AWS verify? A line each: STATE NAME DETAIL.
import http.client, ssl, sys, warnings

warnings.simplefilter("ignore")
host = sys.argv[1]


def plain():
    link = http.client.HTTPSConnection(host, timeout=20)
    link.request("GET", "/")
    link.getresponse()


def requests():
    import requests
    requests.get(f"https://{host}/", timeout=20)


def httpx():
    import httpx
    httpx.get(f"https://{host}/", timeout=20)


def boto3():
    import botocore.config, botocore.exceptions, botocore.session, botocore
    config = botocore.config.Config(signature_version=botocore.UNSIGNED, connect_timeout=20, read_timeout=20, retries={"total_max_attempts": 1})
    client = botocore.session.Session().create_client("sts", region_name="us-east-1", endpoint_url=f"https://{host}", config=config)
    try:
        client.get_caller_identity()
    except botocore.exceptions.ClientError:
        pass


def tell(name, call):
    try:
        call()
        print("verified", name, "")
    except ImportError:
        pass
    except Exception as error:
        text = " ".join(str(error).split())
        wrong = "certificate verify failed" in text.lower() or isinstance(error, ssl.SSLCertVerificationError)
        print("untrusted" if wrong else "failed", name, text[:300])


for name, call in [("ssl", plain), ("requests", requests), ("httpx", httpx), ("botocore", boto3)]:
    tell(name, call)
