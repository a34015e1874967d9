#!/usr/bin/env python3
"""Builds the Debian package from [package.metadata.deb] of Cargo.toml with Debian's own tools.

The program has to be built already. `cargo deb --no-build` reads the same metadata; this script needs
dpkg-dev in place of cargo-deb, and Python 3.11. Prints the path of the package.

  scripts/build_deb.py [--target aarch64-unknown-linux-musl] [--binary FILE] [--version 0.1.0-1] [--output PATH]
"""

import argparse
import glob
import gzip
import os
import re
import shutil
import subprocess
import tempfile
import textwrap
import tomllib

from testbed import ROOT

RELEASE_BINARY = "target/release/dotproxy"
# The names that Debian has for the architectures of releases.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7": "armhf"}
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


def output_of(*command, **keywords):
    """Returns the output of a command without the last line break."""
    return subprocess.run(command, check=True, capture_output=True, text=True, **keywords).stdout.strip()


def install_assets(root, assets, binary):
    """Copies the assets, [source pattern, target, mode], into the folder of the package."""
    for pattern, target, mode in assets:
        pattern = binary if pattern == RELEASE_BINARY else pattern
        sources = sorted(glob.glob(pattern))
        if not sources:
            raise SystemExit(f"Cargo.toml: no file matches the asset {pattern}")
        for source in sources:
            name = os.path.basename(RELEASE_BINARY if source == binary else source)
            path = os.path.join(root, target, name if target.endswith("/") else "")
            path = path.rstrip("/")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            shutil.copyfile(source, path)
            os.chmod(path, int(mode, 8))


def compress(path):
    """Replaces the file with its gzip form, without a time stamp."""
    with open(path, "rb") as source, open(f"{path}.gz", "wb") as target:
        with gzip.GzipFile("", "wb", 9, target, mtime=0) as packed:
            packed.write(source.read())
    os.chmod(f"{path}.gz", 0o644)
    os.remove(path)


def install_documents(root, name, changelog):
    """Adds the changelog and compresses what Debian's policy wants compressed."""
    folder = f"{root}/usr/share/doc/{name}"
    os.makedirs(folder, exist_ok=True)
    shutil.copyfile(changelog, f"{folder}/changelog.Debian")
    for path in [f"{folder}/changelog.Debian", *glob.glob(f"{root}/usr/share/man/man*/*")]:
        compress(path)


def library_dependencies(root, name, work):
    """Returns the packages of the shared libraries of the program."""
    os.makedirs(f"{work}/debian")
    with open(f"{work}/debian/control", "w") as file:
        file.write(f"Source: {name}\n\nPackage: {name}\nArchitecture: any\n")
    found = output_of("dpkg-shlibdeps", "-O", f"{root}/usr/bin/{name}", cwd=work)
    return found.removeprefix("shlibs:Depends=")


def control(package, deb, version, architecture, depends, installed_kib):
    """Returns the text of the control file."""
    description = package["description"].removeprefix("A ")
    lines = textwrap.wrap(deb["extended-description"], 78)
    fields = {
        "Package": package["name"], "Version": version, "Architecture": architecture,
        "Maintainer": deb["maintainer"], "Installed-Size": installed_kib, "Depends": depends,
        "Section": deb["section"], "Priority": deb["priority"],
        "Description": "\n ".join([description, *lines]),
    }
    return "".join(f"{field}: {value}\n" for field, value in fields.items())


def write_metadata(root, package, deb, version, architecture, work):
    """Writes the folder DEBIAN: control file, list of conffiles, checksums and scripts."""
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    paths = sorted(os.path.relpath(path, root) for path in paths)
    size = sum(os.path.getsize(f"{root}/{path}") for path in paths)
    # A static program has no library dependencies.
    depends = deb["depends"].replace("$auto", library_dependencies(root, package["name"], work)).removeprefix(", ")
    os.makedirs(f"{root}/DEBIAN")
    with open(f"{root}/DEBIAN/control", "w") as file:
        file.write(control(package, deb, version, architecture, depends, -(-size // 1024)))
    with open(f"{root}/DEBIAN/conffiles", "w") as file:
        file.writelines(f"{path}\n" for path in deb["conf-files"])
    with open(f"{root}/DEBIAN/md5sums", "w") as file:
        file.write(output_of("md5sum", *paths, cwd=root) + "\n")
    for script in SCRIPTS:
        source = os.path.join(deb["maintainer-scripts"], script)
        if os.path.exists(source):
            shutil.copyfile(source, f"{root}/DEBIAN/{script}")
            os.chmod(f"{root}/DEBIAN/{script}", 0o755)


def main():
    os.chdir(ROOT)
    with open("Cargo.toml", "rb") as file:
        package = tomllib.load(file)["package"]
    deb = package["metadata"]["deb"]
    parser = argparse.ArgumentParser()
    parser.add_argument("--target")
    parser.add_argument("--binary")
    parser.add_argument("--version", default=f"{package['version']}-1")
    parser.add_argument("--output")
    arguments = parser.parse_args()
    architecture, binary = output_of("dpkg", "--print-architecture"), RELEASE_BINARY
    if arguments.target:
        architecture = ARCHITECTURES[arguments.target.split("-")[0]]
        binary = f"target/{arguments.target}/release/dotproxy"
    binary = arguments.binary or binary
    with open(deb["changelog"]) as file:
        newest = re.match(r"\S+ \((.*?)\)", file.read())[1]
    if newest.rsplit("-", 1)[0] != package["version"]:
        raise SystemExit(f"{deb['changelog']}: the newest entry is for {newest}, not {package['version']}")
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as work:
        root = f"{work}/root"
        os.makedirs(root)
        install_assets(root, deb["assets"], binary)
        install_documents(root, package["name"], deb["changelog"])
        write_metadata(root, package, deb, arguments.version, architecture, work)
        output = arguments.output or "target/debian"
        if not arguments.output:
            os.makedirs(output, exist_ok=True)
        built = output_of("dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, output)
        print(re.search(r"in '(.*)'", built)[1])


if __name__ == "__main__":
    main()
