"""The keys of bandwidth's configuration, and their bounds; pure."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from cni.addresses import parse_network
from cni.conf import Int, Model, NetConf, parsed_by
from cni.result import IpNetwork

_LARGEST = 0xFFFFFFFFFFFFFFFF
# The kernel counts a burst in bytes, with 32 bits.
_BURST_END_BYTES = 0xFFFFFFFF
# The kernel turns a burst into time: microseconds here, then ticks of 64 ns there.
_NS_PER_TICK = 64
_RATES = ("ingress_rate", "ingress_burst", "egress_rate", "egress_burst")


def _parse_subnet(text: str) -> IpNetwork:
    try:
        return parse_network(text)
    except ValueError as error:
        raise ValueError(f'bad subnet "{text}" provided, details {error}') from None


Bits = Annotated[Int, Field(ge=0, le=_LARGEST)]
Subnet = Annotated[IpNetwork, parsed_by(_parse_subnet)]


class Limits(Model):
    """Limits of one container. The directions are the container's own: ingress is what it receives.

    Attributes:
        ingress_rate: Limit of what the container receives, in bits per second. 0 is no limit.
        ingress_burst: Amount that it receives beyond the rate at once, in bits. Needed with `ingressRate`.
        egress_rate: Limit of what the container sends, in bits per second. 0 is no limit.
        egress_burst: Amount that it sends beyond the rate at once, in bits. Needed with `egressRate`.
        shaped_subnets: Only traffic with peers in these subnets is limited. Not with `unshapedSubnets`.
        unshaped_subnets: Traffic with peers in these subnets is not limited.
    """

    ingress_rate: Bits = 0
    ingress_burst: Bits = 0
    egress_rate: Bits = 0
    egress_burst: Bits = 0
    shaped_subnets: tuple[Subnet, ...] = ()
    unshaped_subnets: tuple[Subnet, ...] = ()

    @property
    def has_rates(self) -> bool:
        """Whether a rate or a burst is given, 0 as well."""
        return bool(self.model_fields_set.intersection(_RATES))

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_pair("ingress", self.ingress_rate, self.ingress_burst)
        _check_pair("egress", self.egress_rate, self.egress_burst)
        if self.shaped_subnets and self.unshaped_subnets:
            raise ValueError(
                "unshapedSubnets and shapedSubnets cannot be both specified, one of them should be discarded"
            )
        return self


def _check_pair(direction: str, rate: int, burst: int) -> None:
    """Raise ValueError for numbers that the kernel refuses. The texts begin as those of the Go plugin."""
    rate_key, burst_key = f'"{direction}Rate"', f'"{direction}Burst"'
    if rate and not burst:
        raise ValueError(f"if rate is set, burst must also be set: {burst_key} is missing")
    if burst and not rate:
        raise ValueError(f"if burst is set, rate must also be set: {rate_key} is missing")
    if burst // 8 >= _BURST_END_BYTES:
        raise ValueError(
            f"burst cannot be more than 4GB: {burst_key} must be less than {8 * _BURST_END_BYTES} bits, "
            f"got {burst}"
        )
    if not rate:
        return
    if rate < 8:
        raise ValueError(f"{rate_key} must be at least 8 bits per second, got {rate}")
    if not _is_enough(rate // 8, burst // 8):
        least = _least_burst(rate)
        raise ValueError(f"{burst_key} must be at least {least} bits for a rate of {rate}, got {burst}")


def _least_burst(rate: int) -> int:
    """Return a burst that is enough for a rate, both in bits; a smaller one may be, depending on rounding."""
    return 8 * (2 + rate // 8 * 1064 // 10**9)


def _is_enough(rate: int, burst: int) -> bool:
    """Return whether the kernel finds at least one byte in a burst, after it has rounded; both in bytes."""
    ticks = burst * 1_000_000 // rate * 1000 // _NS_PER_TICK
    return ticks * _NS_PER_TICK * rate >= 10**9


class RuntimeConf(Model):
    """Keys that the runtime adds for the capability `bandwidth`.

    Attributes:
        bandwidth: Limits of this container. They count if the configuration itself has no rates.
    """

    bandwidth: Limits = Field(default_factory=Limits)


class BandwidthConf(Limits, NetConf):
    """The configuration of bandwidth.

    Attributes:
        max_burst: Largest burst in bits, for runtimes that ask for 4 GiB. 0 is no limit.
        latency_ms: Time that a packet may wait for its turn. Packets that would wait longer are dropped.
        runtime_config: What the runtime adds for capabilities.
    """

    max_burst: Bits = 0
    latency_ms: Annotated[Int, Field(ge=1, le=10_000)] = 25
    runtime_config: RuntimeConf = Field(default_factory=RuntimeConf)

    @model_validator(mode="after")
    def _check_largest_burst(self) -> Self:
        of = self.limits
        for rate, burst in ((of.ingress_rate, of.ingress_burst), (of.egress_rate, of.egress_burst)):
            if self.max_burst and rate and not _is_enough(rate // 8, min(burst, self.max_burst) // 8):
                least = _least_burst(rate)
                raise ValueError(
                    f'"maxBurst" must be at least {least} bits for a rate of {rate}, got {self.max_burst}'
                )
        return self

    @property
    def limits(self) -> Limits:
        """The limits that count: the configuration's own, or those of the runtime."""
        return self if self.has_rates else self.runtime_config.bandwidth

    @property
    def _subnets(self) -> Limits:
        """The limits whose subnets count: a network may name subnets for the rates of the runtime."""
        return self if self.shaped_subnets or self.unshaped_subnets else self.limits

    @property
    def named_subnets(self) -> tuple[IpNetwork, ...]:
        """The subnets that are treated unlike all others."""
        return self._subnets.shaped_subnets or self._subnets.unshaped_subnets

    @property
    def limits_named(self) -> bool:
        """Whether the named subnets are limited, rather than all others."""
        return bool(self._subnets.shaped_subnets)
