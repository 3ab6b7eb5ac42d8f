# An image that knows nothing of Chaperone: a shell, curl, Python with boto3, a store with one CA, and of the host's files what
# those take: TREE PYTHON, the latter with boto3 in its libraries. It has as `try` what an agent's programs do, each with a
# store of its own.
set -e
tree=$1 python=$2
mkdir -p $tree/usr/bin $tree/usr/sbin $tree/usr/lib/ssl $tree/usr/lib64 $tree/usr/local/lib/python3.11/dist-packages
mkdir -p $tree/proc $tree/sys $tree/dev $tree/tmp $tree/root $tree/run $tree/etc/ssl/certs
for name in bin sbin lib lib64; do ln -sfn usr/$name $tree/$name; done
ln -sfn /etc/ssl/certs $tree/usr/lib/ssl/certs
libraries() {
  for library in $(ldd "$@" | grep -o '/[^ ):]*\.so[^ ):]*' | sort -u); do
    [ -e $tree$library ] || { mkdir -p $tree$(dirname $library); cp -L $library $tree$library; }
  done
}
for program in sh env cat grep curl python3 sleep; do cp -L /usr/bin/$program $tree/usr/bin/; libraries /usr/bin/$program; done
tar -C /usr/lib --exclude=__pycache__ --exclude=test --exclude='config-*' --exclude=idlelib -c python3.11 | tar -C $tree/usr/lib -x
libraries /usr/lib/python3.11/lib-dynload/*.so
site=$($python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
data=botocore/data
{
  tar -C $site --exclude=__pycache__ --exclude="$data/*" -cf - boto3 botocore certifi urllib3 jmespath s3transfer dateutil six.py
} | tar -C $tree/usr/local/lib/python3.11/dist-packages -x
(cd $site && tar -cf - $data/endpoints.json $data/partitions.json $data/sdk-default-configuration.json $data/_retry.json $data/sts) |
  tar -C $tree/usr/local/lib/python3.11/dist-packages -x
sed '/END CERTIFICATE/q' $($python -c 'import certifi; print(certifi.where())') > $tree/etc/ssl/certs/ca-certificates.crt
cat > $tree/usr/bin/try <<'TRY'
#!/bin/sh
url=https://sts.eu-west-1.amazonaws.com/
ask="
import sys, urllib.error, urllib.request
try:
    urllib.request.urlopen('$url')
except urllib.error.HTTPError:
    print('verified', sys.argv[1])
except Exception as error:
    print(error)"
call="import boto3, sys; print('verified', sys.argv[1], boto3.client('sts').get_caller_identity()['Account'])"
curl -sS -o /dev/null $url && echo verified curl
python3 -c "$ask" python
env -i /usr/bin/python3 -c "$ask" without-variables
python3 -c "$call" boto3 2>&1 | grep -e verified -e rror
env -u REQUESTS_CA_BUNDLE python3 -c "$call" boto3-by-its-own-store 2>&1 | grep -e verified -e rror
echo store $(grep -c BEGIN /etc/ssl/certs/ca-certificates.crt) variables $(env | grep -c /ca-certificates)
TRY
chmod 755 $tree/usr/bin/try
