# rclone with nothing but its provider said. Argument: a bucket.
set -e
export RCLONE_CONFIG_AWS_TYPE=s3 RCLONE_CONFIG_AWS_PROVIDER=AWS RCLONE_CONFIG_AWS_ENV_AUTH=true
export RCLONE_CONFIG_AWS_REGION=eu-west-1 RCLONE_CONFIG=/dev/null RCLONE_S3_UPLOAD_CUTOFF=6M RCLONE_S3_CHUNK_SIZE=5M
# (s3s-fs takes an empty delimiter for one, so that nothing is listed recursively.)
export RCLONE_DISABLE=ListR
mkdir -p tree/sub
head -c 16000000 /dev/urandom > tree/large
echo one > "tree/a b,c"
echo two > tree/sub/é
rclone mkdir "aws:$1"
rclone copy tree "aws:$1"
rclone check tree "aws:$1" 2>&1 | grep -o '[0-9]* matching files'
rclone lsf -R --files-only "aws:$1" | sort
rclone cat "aws:$1/sub/é"
rclone copy "aws:$1" back
diff -r tree back && echo "the tree came back"
rclone delete "aws:$1" --include "sub/**"
rclone lsf -R --files-only "aws:$1" | sort
