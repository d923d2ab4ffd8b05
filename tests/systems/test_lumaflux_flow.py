"""The bridge and its Euler steps."""

from __future__ import annotations

import pytest
import torch

from hdrgen_server.systems.lumaflux.flow import bridge, euler, start_of, times


def test_the_bridge_ends_where_it_should_and_moves_at_its_velocity():
    hdr, sdr, noise = torch.randn(3, 2, 4, 3, 3)
    start = start_of(sdr, noise, 0.05)
    torch.testing.assert_close(start, sdr + 0.05 * noise)
    ends = bridge(hdr, start, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(ends.point[0], hdr[0])
    torch.testing.assert_close(ends.point[1], start[1])
    later = bridge(hdr, start, torch.tensor([0.3, 0.3])).point - bridge(hdr, start, torch.tensor([0.2, 0.2])).point
    torch.testing.assert_close(later, 0.1 * ends.velocity, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 8, 40])
def test_steps_with_the_true_velocity_arrive_at_the_hdr_latent(steps):
    hdr, start = torch.randn(2, 1, 4, 3, 3, dtype=torch.float64)
    seen: list[float] = []

    def velocity(point: torch.Tensor, time: float) -> torch.Tensor:
        seen.append(time)
        torch.testing.assert_close(point, (1 - time) * hdr + time * start)
        return start - hdr

    torch.testing.assert_close(euler(start, velocity, steps), hdr)
    assert seen == times(steps)[:-1]
    assert seen[0] == 1.0


def test_steps_of_a_curved_flow_converge_to_first_order():
    """dz/dt = z from t = 1 to 0 shrinks by e."""
    start = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    errors = [abs(float(euler(start, lambda z, _: z, n)) - torch.e**-1) for n in (40, 80)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)
