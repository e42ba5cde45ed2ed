"""Comments tell owners apart, in the form of the Go plugins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.firewall import owners
from cni.firewall.intents import Owner
from cni.request import Attachment


@pytest.mark.parametrize(
    ("network", "container_id", "tag"),
    [
        ("net1", "cid1", "8e48f37d5de60467-0b65a318f52e521b"),
        ("podman", "0123456789abcdef" * 4, "1d8721804f16f412-848025970da6a998"),
        ("bridge", "default-" + "a" * 64, "7d24d33e39064c8a-8045e606364ed7f0"),
        ("crio", "x", "99c99264bf0ebaf4-a72a88a8c95bdab7"),
    ],
)
def test_tags_are_those_of_the_go_plugins(network: str, container_id: str, tag: str) -> None:
    owner = Owner(network, container_id, "eth0")
    assert owners.tag(owner) == tag
    assert owners.comment(owner).startswith(f"{tag}, net: {network}, if: eth0, id: {container_id[:20]}")


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=15))
def test_a_comment_fits_and_begins_with_the_tags(network: str, container_id: str, ifname: str) -> None:
    owner = Owner(network, container_id, ifname)
    comment = owners.comment(owner)
    assert len(comment.encode()) <= owners.COMMENT_BYTES
    assert '"' not in comment
    assert comment.startswith(owners.tag(owner))
    assert owners.tag(owner).startswith(owners.network_tag(network))


def test_attachments_of_a_container_are_distinguished() -> None:
    tags = {owners.tag(Owner(net, "c1", ifname)) for net in ("a", "b") for ifname in ("eth0", "eth1")}
    assert len(tags) == 4
    assert owners.tags("a", [Attachment("c1", "eth0"), Attachment("c1", "eth1")]) < tags


@pytest.mark.parametrize("container_id", ["c1", "c" * 200])
def test_comments_tell_containers_apart(container_id: str) -> None:
    comment = owners.comment(Owner("net1", container_id, "eth0"))
    assert owners.is_of_container(comment, container_id)
    assert not owners.is_of_container(comment, "c12")
    assert not owners.is_of_container("by hand", container_id)


def test_a_comment_is_shown_in_words() -> None:
    shown = owners.shown(owners.comment(Owner("net1", "cid1", "eth0")))
    assert shown == 'container "cid1" (interface "eth0" on network "net1")'
    assert owners.shown("by hand") == '"by hand"'
    assert owners.shown("") == "a rule without a comment"
