"""Signed files: what a public key lets through, and that it is Ed25519 as others know it."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
import torch
from native_for_tests import run
from torch import nn

import convship
from convship.cli import main

OPENSSL = "openssl"


def openssl(*arguments: object) -> None:
    subprocess.run([OPENSSL, *map(str, arguments)], check=True, capture_output=True)


def make_key(folder: Path, name: str, algorithm: str = "ed25519") -> tuple[Path, Path]:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    openssl("genpkey", "-algorithm", algorithm, "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    return private, public


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("signing")


@pytest.fixture(scope="module")
def key(folder) -> tuple[Path, Path]:
    return make_key(folder, "ours")


@pytest.fixture(scope="module")
def unsigned(folder) -> Path:
    path = folder / "unsigned.pt"
    convship.export_model(nn.Linear(3, 2), path, samples=[torch.rand(1, 3)])
    return path


@pytest.fixture(scope="module")
def signed(folder, key, unsigned) -> Path:
    path = folder / "signed.pt"
    assert main(["sign", str(unsigned), "--key", str(key[0]), "--out", str(path)]) == 0
    return path


def test_signed_file_loads_with_and_without_the_key(signed, unsigned, key):
    x = torch.rand(4, 3)
    expected = convship.load(unsigned).run(x)["output"]
    for public_key in (None, key[1], str(key[1]), key[1].read_bytes()):
        model = convship.load(signed, public_key=public_key)
        assert torch.equal(model.run(x)["output"], expected)
    assert convship.inspect(signed, public_key=key[1]) == convship.inspect(unsigned)
    assert torch.equal(torch.jit.load(signed)(x), expected)  # and so does stock torch


def test_program_takes_the_key(signed, unsigned, key):
    assert run("selftest", signed, "--public-key", key[1]).returncode == 0
    refused = run("selftest", unsigned, "--public-key", key[1])
    assert refused.returncode == 3
    assert "the file is not signed" in refused.stderr
    assert run("info", signed, "--public-key", "none.pem").returncode == 2
    empty = key[1].with_name("empty.pem")
    empty.write_text("")
    assert run("info", unsigned, "--public-key", empty).returncode == 2


def test_openssl_verifies_the_signature(signed, key, folder):
    """The text that is signed is what docs/file-format.md says, so that anybody can check it."""
    comment = signed.read_bytes()[-218:].decode("ascii")
    version, digest, signature = comment.split(" ")
    (folder / "text").write_text(f"{version} model\n{digest}\n")
    (folder / "signature").write_bytes(bytes.fromhex(signature.removeprefix("ed25519=")))
    openssl(
        *("pkeyutl", "-verify", "-pubin", "-inkey", key[1], "-rawin"),
        *("-in", folder / "text", "-sigfile", folder / "signature"),
    )


def test_everything_else_is_refused(signed, unsigned, key, folder):
    other_private, other_public = make_key(folder, "other")
    plain = folder / "plain.pt"
    torch.jit.save(torch.jit.script(nn.Linear(3, 2)), plain)
    changed = folder / "changed.pt"
    content = bytearray(signed.read_bytes())
    content[-1] ^= 1  # of the signature
    changed.write_bytes(content)
    redigested = folder / "redigested.pt"
    redigest(signed, redigested)
    theirs = folder / "theirs.pt"
    convship.sign(signed, other_private, out=theirs)
    for path, message in [
        (unsigned, "the file is not signed"),
        (plain, "the file is not signed"),
        (theirs, "not of the given public key"),
        (changed, "not of the given public key"),
        (redigested, "not of the given public key"),
    ]:
        with pytest.raises(convship.ModelFileError, match=message):
            convship.load(path, public_key=key[1], allow_plain=True)
        with pytest.raises(convship.ModelFileError, match=message):
            convship.inspect(path, public_key=key[1])
    convship.load(redigested)  # the digest alone is no proof of origin
    both = key[1].read_bytes() + other_public.read_bytes()
    convship.load(theirs, public_key=both)
    convship.load(signed, public_key=both)


def redigest(signed: Path, target: Path) -> None:
    """Change a byte that means nothing (padding) and write the digest that fits it."""
    import hashlib

    content = bytearray(signed.read_bytes())
    content[content.index(b"ZZZ")] = ord("Y")
    digest = hashlib.sha256(content[:-218]).hexdigest().encode()
    start = len(content) - 218 + len(b"convship1 sha256=")
    content[start : start + 64] = digest
    target.write_bytes(content)


def test_every_bit_of_comment_and_length_matters(signed, key):
    good = signed.read_bytes()
    for position in range(len(good) - 220, len(good)):
        for bit in range(8):
            damaged = bytearray(good)
            damaged[position] ^= 1 << bit
            with pytest.raises(convship.ModelFileError):
                convship.model._C.Model.from_bytes(
                    bytes(damaged), public_key=key[1].read_text(), allow_plain=True
                )


def test_signing_again_replaces_the_signature(signed, key, folder):
    again = folder / "again.pt"
    convship.sign(signed, key[0], out=again)
    assert again.read_bytes() == signed.read_bytes()  # Ed25519 takes no random number


def test_wrong_keys_are_named(unsigned, signed, key, folder, capsys):
    rsa_private, rsa_public = make_key(folder, "rsa", "RSA")
    for wrong in (rsa_public, key[0], unsigned, b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n"):
        with pytest.raises(ValueError, match=r"public_key must|a key must be PEM"):
            convship.load(signed, public_key=wrong)
    encrypted = folder / "encrypted.pem"
    openssl("pkey", "-in", key[0], "-aes256", "-passout", "pass:x", "-out", encrypted)
    for wrong in (rsa_private, key[1], encrypted):
        assert main(["sign", str(unsigned), "--key", str(wrong)]) == 2
        assert "must be an Ed25519 key in PEM without a passphrase" in capsys.readouterr().err
    assert main(["sign", str(unsigned), "--key", str(folder / "none.pem")]) == 2
    good_then_bad = key[1].read_bytes() + base64.b64encode(b"x") + b"\n-----BEGIN PUBLIC KEY-----\n"
    with pytest.raises(ValueError, match="public_key must"):
        convship.load(signed, public_key=good_then_bad)


def test_damaged_and_plain_files_are_not_signed(unsigned, key, folder, capsys):
    damaged = folder / "damaged.pt"
    content = bytearray(unsigned.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    plain = folder / "plain2.pt"
    torch.jit.save(torch.jit.script(nn.Linear(3, 2)), plain)
    for path in (damaged, plain, folder / "missing.pt"):
        before = path.read_bytes() if path.exists() else None
        assert main(["sign", str(path), "--key", str(key[0])]) == 3
        assert (path.read_bytes() if path.exists() else None) == before
