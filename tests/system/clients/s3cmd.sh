# s3cmd without a configuration. Argument: a bucket.
set -e
head -c 16000000 /dev/urandom > large
echo one > small
s3cmd() { /usr/bin/s3cmd --config=/dev/null --no-progress --region=eu-west-1 \
  --host=s3.eu-west-1.amazonaws.com --host-bucket='%(bucket)s.s3.eu-west-1.amazonaws.com' "$@"; }
s3cmd mb "s3://$1"
s3cmd --multipart-chunk-size-mb=5 put large "s3://$1/large" >/dev/null
s3cmd put small "s3://$1/a b,c" >/dev/null
s3cmd get "s3://$1/large" back >/dev/null
cmp large back && echo "the object came back"
s3cmd ls "s3://$1" | awk '{print $3, $4, $5}'
s3cmd del "s3://$1/a b,c"
s3cmd ls "s3://$1" | awk '{print $3, $4}'
