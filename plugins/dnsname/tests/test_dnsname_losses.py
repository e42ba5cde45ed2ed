"""`pycni watch` takes rules for names for a network's, so that their loss concerns all its containers."""

from __future__ import annotations

import pytest

from cni.firewall.iptables.rules import forward_chain, owner_chain
from cni.firewall.losses import named_owners
from cni_dnsname.admission import PREFIX, owner_of
from cni_dnsname.gates import comment_of


@pytest.mark.parametrize("network", ["net1", "n" * 100])
def test_rules_for_names_are_no_attachments(network: str) -> None:
    owner = owner_of(network)
    chain, comment = owner_chain(PREFIX, owner), comment_of(network, ("10.1.0.0/24", "10.1.0.1"))
    assert named_owners(chain.encode()) == named_owners(comment.encode()) == []
    # Only what contains this is a loss of this suite's at all.
    assert all("cni" in each.lower() for each in (chain, comment))
    assert len(comment.encode()) <= 128
    assert named_owners(forward_chain(owner).encode()) != []
