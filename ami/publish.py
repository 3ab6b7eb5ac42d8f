#!/usr/bin/env python3
"""Makes an AMI of a disk image: an EBS snapshot of it by the EBS direct APIs, which take no bucket and no role of VM
Import's, and `RegisterImage`. Without --yes it prints what it would do, and the same by other tools.

Needs boto3, and of its credentials ebs:StartSnapshot, ebs:PutSnapshotBlock, ebs:CompleteSnapshot,
ec2:DescribeSnapshots and ec2:RegisterImage.
"""
import argparse, base64, concurrent.futures, hashlib, os, sys, time

BLOCK = 512 * 1024
GIB = 1 << 30


def main():
    options = arguments()
    size = os.path.getsize(options.image)
    gib = -(-size // GIB)
    if not options.yes:
        return tell(options, gib)
    try:
        import boto3
    except ImportError:
        sys.exit("publish: --yes needs boto3: pip install boto3, or use the commands that are printed without --yes")
    session = boto3.session.Session(region_name=options.region)
    if not session.region_name:
        sys.exit("publish: no region: give --region, or set AWS_REGION")
    snapshot = upload(session.client("ebs"), options.image, gib, options.name)
    ec2 = session.client("ec2")
    completed(ec2, snapshot)
    image = ec2.register_image(**registration(options, snapshot, gib))["ImageId"]
    print(image)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True, help="the raw disk")
    parser.add_argument("--architecture", required=True, choices=["x86_64", "arm64"])
    parser.add_argument("--name", default=time.strftime("chaperone-%Y%m%d-%H%M%S"))
    parser.add_argument("--region")
    parser.add_argument("--yes", action="store_true", help="do it")
    options = parser.parse_args()
    if not os.path.isfile(options.image):
        parser.error(f"{options.image} is no file: `cargo xtask image` makes it")
    return options


def registration(options, snapshot, gib):
    """IMDSv2 alone, from the first boot of every instance."""
    return {
        "Name": options.name,
        "Description": "Debian 13 with Chaperone: AI agents' calls to AWS are decided, signed and recorded",
        "Architecture": options.architecture,
        "VirtualizationType": "hvm",
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot, "VolumeSize": gib, "VolumeType": "gp3", "DeleteOnTermination": True}}
        ],
        "BootMode": "uefi",
        "EnaSupport": True,
        "ImdsSupport": "v2.0",
    }


def tell(options, gib):
    region = options.region or "REGION"
    register = (
        f"  aws ec2 register-image --region {region} --name {options.name} --architecture {options.architecture} \\\n"
        "    --virtualization-type hvm --root-device-name /dev/xvda --boot-mode uefi --ena-support --imds-support v2.0 \\\n"
        f"    --block-device-mappings 'DeviceName=/dev/xvda,Ebs={{SnapshotId=SNAPSHOT,VolumeSize={gib},VolumeType=gp3,DeleteOnTermination=true}}'"
    )
    print(
        f"With --yes, this uploads the blocks of {options.image} that aren't empty as an EBS snapshot of {gib} GiB\n"
        "(ebs:StartSnapshot, ebs:PutSnapshotBlock, ebs:CompleteSnapshot), waits for it, and registers the AMI by it\n"
        "(ec2:RegisterImage). Nothing was done. By hand, with coldsnap (crates.io):\n\n"
        f"  coldsnap --region {region} upload --wait {options.image}    # prints SNAPSHOT\n"
        f"{register}\n\n"
        "or with the AWS CLI alone, a bucket and VM Import's role `vmimport`:\n\n"
        f"  aws s3 cp {options.image} s3://BUCKET/{options.name}.raw\n"
        f"  aws ec2 import-snapshot --region {region} --disk-container 'Format=RAW,UserBucket={{S3Bucket=BUCKET,S3Key={options.name}.raw}}'\n"
        f"  aws ec2 wait snapshot-imported --region {region} --import-task-ids TASK\n"
        f"  aws ec2 describe-import-snapshot-tasks --region {region} --import-task-ids TASK    # tells SNAPSHOT\n"
        f"{register}"
    )


def upload(ebs, path, gib, name):
    snapshot = ebs.start_snapshot(VolumeSize=gib, Description=name, Timeout=60)["SnapshotId"]
    print(f"publish: uploading {path} as {snapshot}", file=sys.stderr)

    def put(index, data):
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        ebs.put_snapshot_block(
            SnapshotId=snapshot, BlockIndex=index, BlockData=data, DataLength=len(data), Checksum=digest, ChecksumAlgorithm="SHA256"
        )

    # So many blocks are in memory, and no more.
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        under_way, changed = set(), 0
        for index, data in blocks(path):
            if len(under_way) >= 32:
                done, under_way = concurrent.futures.wait(under_way, return_when=concurrent.futures.FIRST_COMPLETED)
                for each in done:
                    each.result()
            under_way.add(pool.submit(put, index, data))
            changed += 1
        for each in under_way:
            each.result()
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=changed)
    return snapshot


def blocks(path):
    """The blocks that aren't empty, each whole: what isn't put reads as zeros."""
    with open(path, "rb") as file:
        index = 0
        while data := file.read(BLOCK):
            if data.strip(b"\0"):
                yield index, data.ljust(BLOCK, b"\0")
            index += 1


def completed(ec2, snapshot):
    for _ in range(720):
        state = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"]
        if state == "completed":
            return
        if state == "error":
            sys.exit(f"publish: EBS couldn't make {snapshot}: delete it, and try again")
        time.sleep(5)
    sys.exit(f"publish: {snapshot} isn't complete after an hour; register the AMI by it once it is")


if __name__ == "__main__":
    main()
