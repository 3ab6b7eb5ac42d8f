"""Asks ClickHouse over HTTP: query.py URL DATABASE SQL. For the demo and the tests, inside of a lab."""

import sys
import urllib.error
import urllib.parse
import urllib.request

url, database, sql = sys.argv[1:]
request = urllib.request.Request(f"{url}/?database={urllib.parse.quote(database)}", data=sql.encode())
try:
    with urllib.request.urlopen(request, timeout=30) as answer:
        sys.stdout.buffer.write(answer.read())
except urllib.error.HTTPError as error:
    sys.exit(f"ClickHouse: {error.read().decode(errors='replace')}")
except OSError as error:
    sys.exit(f"ClickHouse at {url}: {error}")
