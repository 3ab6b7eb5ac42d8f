# What stands for AWS on an instance that is tried: its metadata address, S3 and the DNS, on the instance's own loopback.
# Its state is on the instance's disk, and so outlasts a boot.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
dir=/var/lib/standin
mkdir -p $dir/s3/data /run/systemd/resolved.conf.d
printf 'AKIAIOSFODNN7EXAMPLE\nwJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n' > $dir/key
[ -e $dir/user-data ] || cp /run/payload/user-data.toml $dir/user-data
ip link set lo up
ip address add 169.254.169.254/32 dev lo
printf '[Resolve]\nDNS=127.77.0.53\nDomains=~.\nDNSSEC=no\n' > /run/systemd/resolved.conf.d/standin.conf
systemctl --no-block try-restart systemd-resolved
/run/payload/chaperone-fakes --dir $dir --aws s3 --key $dir/key --dns 127.77.0.53:53 &
while ! [ -e $dir/ca.crt ]; do sleep 0.2; done
exec python3 /run/payload/imds.py $dir
