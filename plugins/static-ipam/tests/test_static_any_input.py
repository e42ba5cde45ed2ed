"""Whatever a configuration and CNI_ARGS say: a result that CHECK accepts, or an error; DEL succeeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cni.errors import Code
from cni.testing.direct import call
from cni.versions import SUPPORTED, at_least
from cni_static_ipam import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.testing.answer import Answer

REFUSALS = {0, Code.INVALID_ENVIRONMENT, Code.INVALID_CONFIG}
CIDRS = st.sampled_from(["10.1.0.2/24", "10.1.0.3/24", "10.2.0.2/0", "fd00::2/64", "fe80::1/128"])
ADDRESSES = st.sampled_from(["10.1.0.1", "10.9.0.1", "fd00::1", "::ffff:10.1.0.1", ""])
WRONG = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["10.1.0.2", "10.1.0.2/33", "::/129", "/", "\ud800", "::ffff:10.0.0.1/120", "1\0/8"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
SPELLINGS: list[Callable[[str], str]] = [str.lower, str.upper, str, str]


def some(*, is_wrong: bool = True, **members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return an object with some of the members, by default one of six wrong, keys in any case."""
    drawn = {key: st.one_of(*[each] * 5, WRONG) if is_wrong else each for key, each in members.items()}
    return st.builds(
        lambda document, spell: {spell(key): value for key, value in document.items()},
        st.fixed_dictionaries({}, optional=drawn),
        st.sampled_from(SPELLINGS),
    )


REQUESTED = some(ips=st.lists(CIDRS | CIDRS | WRONG, max_size=2))
IPAM = some(
    addresses=st.lists(some(address=CIDRS, gateway=ADDRESSES), max_size=3),
    routes=st.lists(some(dst=CIDRS, gw=ADDRESSES, mtu=st.integers(-1, 2**33), table=st.just(7)), max_size=2),
    dns=some(nameservers=st.lists(st.text(max_size=3), max_size=2), domain=st.text(max_size=5)),
)
# The skeleton reads what is an object for every plugin.
KEYS = some(
    is_wrong=False,
    ipam=IPAM,
    args=some(is_wrong=False, cni=REQUESTED),
    runtimeConfig=REQUESTED,
    dns=st.just({"nameservers": ["192.0.2.1"]}),
)
PAIRS = st.sampled_from(["IP", "IP", "GATEWAY", "GATEWAY", "IgnoreUnknown", "ip", ""])
VALUES = st.lists(CIDRS | ADDRESSES | st.text(max_size=4), max_size=3).map(",".join) | st.sampled_from("01=")
ARGS = st.lists(st.tuples(PAIRS, VALUES).map("=".join), max_size=3).map(";".join)


@settings(max_examples=400, deadline=None)
@given(keys=KEYS, args=st.just("") | ARGS, version=st.sampled_from(SUPPORTED))
def test_every_call_is_answered_and_del_succeeds(keys: dict[str, Any], args: str, version: str) -> None:
    def ask(verb: str, **more: Any) -> Answer:
        conf = {"cniVersion": version, "name": "net"} | keys | more
        answer = call(PLUGIN, verb, conf, args=args)
        assert answer.code in REFUSALS, answer
        return answer

    added = ask("ADD")
    assert added == ask("ADD")
    if added.ok and at_least(version, "0.4.0"):
        assert ask("CHECK", prevResult=added.json).must() == {}
    if at_least(version, "1.1.0"):
        assert ask("STATUS").ok or not added.ok
        assert ask("GC", **{"cni.dev/valid-attachments": []}).must() == {}
    assert ask("DEL").must() == {}
