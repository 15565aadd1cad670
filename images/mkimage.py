#!/usr/bin/env python3
"""Write a one-layer OCI image archive from a directory, without a registry or a daemon.

The archive is a function of the directory and the arguments alone: owners are root, times are zero, names are sorted.
containerd takes the image's name from the annotation in index.json; `kind load image-archive` reads the same archive.
"""

import argparse
import hashlib
import io
import json
import os
import stat
import tarfile

MEDIA = "application/vnd.oci.image."
PLATFORM = {"architecture": "amd64", "os": "linux"}
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="name:tag")
    parser.add_argument("archive", help="the file to write")
    parser.add_argument("root", help="the directory that becomes the image's file system")
    parser.add_argument("--entrypoint", help="the program to run; without it the pod must name one")
    parser.add_argument("--user", default="0", help="uid")
    return parser.parse_args()


def members(root):
    """Every path below root, each directory before what it holds."""
    for base, directories, files in os.walk(root):
        directories.sort()
        for name in sorted(directories + files):
            yield os.path.join(base, name)


def layer_of(root):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in members(root):
            status = os.lstat(path)
            info = tarfile.TarInfo(os.path.relpath(path, root))
            info.mode = stat.S_IMODE(status.st_mode)
            if stat.S_ISLNK(status.st_mode):
                info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
                tar.addfile(info)
            elif stat.S_ISDIR(status.st_mode):
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            elif stat.S_ISREG(status.st_mode):
                info.size = status.st_size
                with open(path, "rb") as file:
                    tar.addfile(info, file)
            else:
                raise SystemExit(f"{path}: neither a file, a directory nor a symlink")
    return out.getvalue()


class Blobs:
    """The archive's content, by digest."""

    def __init__(self):
        self.by_digest = {}

    def put(self, data, media):
        digest = hashlib.sha256(data).hexdigest()
        self.by_digest[digest] = data
        return {"mediaType": MEDIA + media, "digest": "sha256:" + digest, "size": len(data)}

    def put_json(self, value, media):
        return self.put(json.dumps(value, sort_keys=True).encode(), media)


def image_index(args, blobs):
    layer = blobs.put(layer_of(args.root), "layer.v1.tar")
    run = {"Env": [PATH], "WorkingDir": "/", "User": args.user}
    if args.entrypoint:
        run["Entrypoint"] = [args.entrypoint]
    rootfs = {"type": "layers", "diff_ids": [layer["digest"]]}
    config = blobs.put_json(PLATFORM | {"config": run, "rootfs": rootfs}, "config.v1+json")
    manifest = blobs.put_json(
        {"schemaVersion": 2, "mediaType": MEDIA + "manifest.v1+json", "config": config, "layers": [layer]},
        "manifest.v1+json",
    )
    manifest["platform"] = PLATFORM
    manifest["annotations"] = {
        "io.containerd.image.name": args.name,
        "org.opencontainers.image.ref.name": args.name.rsplit(":", 1)[1],
    }
    return {"schemaVersion": 2, "mediaType": MEDIA + "index.v1+json", "manifests": [manifest]}


def write(archive, index, blobs):
    def add(tar, name, data):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))

    unfinished = f"{archive}.{os.getpid()}"
    with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add(tar, "index.json", json.dumps(index, sort_keys=True).encode())
        for digest in sorted(blobs.by_digest):
            add(tar, "blobs/sha256/" + digest, blobs.by_digest[digest])
    os.replace(unfinished, archive)


def main():
    args = arguments()
    blobs = Blobs()
    write(args.archive, image_index(args, blobs), blobs)


if __name__ == "__main__":
    main()
