"""Thirty ways in which programs that start and stop VMs fail, how this one responds, and the tests that prove it.

Rules of this file: `does` claims what the named tests show, and no more. A test is named by its pytest node id
without parameters. `python -m tests.failure_modes` prints the table, and fails if a named test does not exist.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Mode:
    """One failure mode: its number, its name, what the daemon does about it, and the node ids of its tests."""

    number: int
    title: str
    does: str
    tests: tuple[str, ...]


def _mode(number: int, title: str, does: str, *tests: str) -> Mode:
    return Mode(number, title, does, tuple(f"tests/{each}" for each in tests))


MODES: tuple[Mode, ...] = (
    _mode(
        1,
        "One VM that cannot be started fails the whole call",
        "A refused batch is split until the faulty VMs are isolated. They are left alone for a growing time; all "
        "others start within the same tick and within a bounded number of calls.",
        "daemon/test_actuator_calls.py::test_every_good_vm_is_started_exactly_once_within_the_call_budget",
        "daemon/test_actuator_calls.py::test_the_budget_is_the_known_bound_at_powers_of_two",
        "daemon/test_start_path.py::test_one_bad_vm_is_found_and_replaced_within_the_tick",
        "daemon/test_refused_for_good.py::test_one_vm_that_we_may_not_start_keeps_no_other_from_it",
        "contracts/test_provider_contract.py::test_a_batch_with_an_absent_vm_changes_none",
        "ec2/test_failure_modes_on_the_wire.py::"
        "test_what_is_needed_serves_all_the_same_within_few_calls_and_none_is_started_twice",
    ),
    _mode(
        2,
        "The zone has no room for stopped VMs",
        "Lack of room is remembered for the type and zone. VMs that could not start are replaced by others in "
        "another zone, by the same VM as another type, or by new VMs in other subnets. When the time for a place "
        "without room is over, one VM tries it again. The shortage is an event with its end.",
        "daemon/test_loop_acting.py::test_a_dry_zone_is_left_alone_and_another_is_used",
        "daemon/test_start_path.py::test_a_dry_place_is_tried_by_one_vm_each_time_its_time_is_over",
        "daemon/test_start_path.py::test_a_stopped_vm_is_started_as_another_type_and_goes_back_to_its_own",
        "daemon/test_start_path.py::test_new_vms_are_made_in_the_next_subnet_and_then_as_the_next_type",
        "daemon/test_start_path.py::test_a_warm_pool_without_room_is_made_up_for_by_new_vms_within_the_bound",
        "daemon/test_start_path.py::test_fleets_of_one_account_share_what_is_known_of_places",
        "daemon/test_start_path.py::"
        "test_of_many_fleets_that_wait_for_a_dry_place_one_tries_it_each_time_and_then_all_are_served",
        "daemon/test_dry_place_of_many_fleets.py::"
        "test_all_fleets_have_their_vms_in_little_more_than_the_time_of_a_start",
        "ec2/test_riding_places.py::"
        "test_more_than_a_hundred_fleets_start_elsewhere_within_seconds_while_a_zone_is_dry",
        "daemon/test_failure_modes_room.py::"
        "test_demand_is_met_in_the_time_of_a_start_wherever_there_is_room_and_dry_places_are_hardly_asked",
        "ec2/test_failure_modes_on_the_wire.py::"
        "test_what_is_needed_serves_all_the_same_within_few_calls_and_none_is_started_twice",
    ),
    _mode(
        3,
        "Missing measurements are taken as zero demand",
        "Unknown demand is not zero: absent, old or invalid readings stop nothing. A blind fleet falls back no "
        "lower than its last good wish. Demand that vanishes on all VMs at once is doubted for a while.",
        "core/test_trust.py::test_a_run_with_losses_is_never_below_the_run_without_while_demand_does_not_grow_unseen",
        "core/test_trust.py::test_a_blind_run_is_never_below_the_least_that_the_last_good_sample_asked_for",
        "daemon/test_loop_acting.py::test_metrics_that_vanish_at_the_peak_stop_nothing_and_zero_demand_does",
        "daemon/test_loop_acting.py::test_old_readings_stop_nothing",
        "daemon/test_trusted_demand.py::test_vms_that_all_report_nothing_at_once_are_not_stopped_for_a_while",
        "contracts/test_source_contract.py::test_a_failure_is_never_a_zero_and_always_told",
        "daemon/test_failure_modes_leaving.py::test_whatever_is_heard_instead_of_the_peak_no_vm_is_stopped",
        "daemon/test_impossible_readings.py::test_nothing_is_started_and_it_is_told_once_and_when_it_is_over",
    ),
    _mode(
        4,
        "A busy VM is stopped",
        "Behind a balancer, a VM is cordoned first, and stopped only after two looks in a row have found it idle. "
        "If it stays busy beyond its time, the policy decides.",
        "daemon/test_drain.py::test_a_vm_is_cordoned_then_seen_idle_twice_and_only_then_stopped",
        "daemon/test_drain.py::test_work_that_arrived_before_the_cordon_is_finished",
        "daemon/test_drain.py::test_one_idle_look_between_busy_ones_stops_nothing",
        "daemon/test_drain.py::test_two_looks_are_two_readings_after_the_cordon_in_a_row",
        "daemon/test_drain.py::test_somebody_who_puts_a_draining_vm_back_is_noticed_and_it_is_not_stopped_with_work",
        "balancers/test_drain_under_load.py::test_a_drained_vm_is_switched_off_under_load_and_no_request_fails",
        "daemon/test_failure_modes_leaving.py::test_no_vm_is_stopped_with_work_that_came_before_its_cordon",
        "daemon/test_start_path.py::test_one_that_comes_late_and_is_stopped_is_never_put_into_the_balancer",
    ),
    _mode(
        5,
        "One exception stops everything",
        "Trouble with one fleet's source, probe, listing or calls changes no decision of another fleet. A tick "
        "that fails is counted, and the next one is on time.",
        "daemon/test_loop_isolation.py::test_a_bad_source_leaves_the_other_fleet_as_it_was_and_its_own_vms_too",
        "daemon/test_loop_isolation.py::test_a_bad_listing_of_one_account_is_a_failed_listing_of_its_fleets_only",
        "daemon/test_loop_isolation.py::test_a_bad_probe_means_not_ready_for_its_own_fleet",
        "daemon/test_loop_isolation.py::test_bad_calls_of_one_fleet_change_no_decision_of_another",
        "daemon/test_adapters_isolated.py::test_the_other_fleet_decides_as_if_nothing_were",
        "daemon/test_loop_acting.py::test_a_tick_that_fails_is_counted_and_the_next_one_is_on_time",
        "ec2/test_ec2_bad_days.py::test_one_bad_record_is_named_and_hides_no_other",
        "soak/test_soak.py::test_no_tick_and_no_act_failed",
    ),
    _mode(
        6,
        "A start is accepted and the VM falls back to stopped",
        "A start counts as done once the VM is ready. A VM that fell back is replaced in the tick that sees it. "
        "EC2's reason is reported, and decides whether the VM or its place is left alone.",
        "daemon/test_loop_acting.py::test_a_start_that_falls_back_is_replaced_at_the_next_tick_and_quarantined",
        "daemon/test_inventory_reconcile.py::"
        "test_a_start_that_fell_back_for_capacity_makes_its_place_dry_and_the_rest_is_startable",
        "contracts/test_provider_contract.py::test_a_start_that_falls_back_says_why_in_the_listing",
        "daemon/test_failure_modes_acting.py::test_whenever_a_start_falls_back_another_vm_serves_in_time",
        "ec2/test_failure_modes_on_the_wire.py::"
        "test_what_is_needed_serves_all_the_same_within_few_calls_and_none_is_started_twice",
    ),
    _mode(
        7,
        "VMs that stay pending or stopping",
        "Every transient state has a longest time, learned and bounded. A late start is first not counted on and "
        "then written off; a stop that does not end is forced. Both are events.",
        "daemon/test_start_path.py::test_a_vm_that_stays_pending_is_written_off_and_one_that_stays_stopping_is_forced",
        "daemon/test_start_path.py::test_a_late_start_is_overtaken_and_stopped_on_arrival",
        "daemon/test_lateness_ends.py::test_a_stop_that_never_ends_is_written_off_once_and_counts_no_more",
        "daemon/test_lateness_ends.py::test_a_start_that_does_not_come_is_told_once_and_not_counted_on_from_then_on",
        "daemon/test_start_path_laws.py::test_the_start_path_keeps_its_laws_in_a_bad_hour_and_is_whole_after_it",
        "contracts/test_provider_contract.py::test_a_forced_stop_ends_what_does_not_stop",
    ),
    _mode(
        8,
        "The API throttles because of too many calls",
        "All calls of an account pass through token buckets a little below EC2's, starts first. A refusal lowers "
        "the estimate of its bucket. Only such a refusal is retried, within the time of the call.",
        "ec2/test_call_budget.py::"
        "test_a_steady_state_beside_others_who_use_half_of_every_refill_is_hardly_ever_refused",
        "ec2/test_call_budget.py::test_what_is_worth_more_goes_first_and_then_what_brings_most",
        "ec2/test_call_budget.py::"
        "test_a_refusal_is_tried_again_more_slowly_within_the_time_of_the_call_and_no_longer",
        "ec2/test_call_budget.py::test_how_long_a_burst_would_take",
        "shadow/test_shadow_fleet.py::test_an_acting_fleet_and_one_in_shadow_share_one_listing_a_tick",
        "daemon/test_failure_modes_acting.py::test_a_burst_of_a_thousand_starts_takes_little_more_than_the_bucket_allows",
        "daemon/test_failure_modes_acting.py::"
        "test_an_hour_of_eight_fleets_beside_somebody_who_uses_half_of_the_budget_is_hardly_ever_refused",
    ),
    _mode(
        9,
        "The loop stands still and nobody notices",
        "Waits for sources, listings and the disk are bounded. If a fleet has not been decided on for three "
        "ticks, /healthz answers 503 and the service manager gets no more signs of life. Background tasks that "
        "end are started again.",
        "daemon/test_loop_isolation.py::test_a_source_that_hangs_costs_its_deadline_and_nothing_else",
        "daemon/test_loop_isolation.py::test_a_listing_that_hangs_costs_its_deadline_and_nothing_else",
        "daemon/test_loop_bounds.py::"
        "test_a_hung_disk_holds_acts_while_deciding_goes_on_and_acts_follow_when_it_is_back",
        "daemon/test_supervision.py::"
        "test_there_is_no_sign_of_life_once_a_fleet_is_not_decided_on_for_three_ticks",
        "web/test_web_site.py::test_health_turns_when_a_fleet_has_not_been_decided_on_for_three_ticks",
        "daemon/test_supervision.py::test_a_task_that_dies_is_told_counted_and_restarted_ever_more_slowly",
    ),
    _mode(
        10,
        "Starting and stopping by turns",
        "Policies that would oscillate, stop VMs before the billing minimum or cool down too briefly are refused "
        "or cause a warning. Every replay reports its reversals.",
        "config/test_policy_checks.py::test_steps_that_undo_each_other",
        "config/test_policy_checks.py::test_steps_by_share_hunt_only_where_the_share_is_large",
        "config/test_policy_checks.py::test_on_time_below_the_billing_floor",
        "config/test_policy_checks.py::test_a_cooldown_shorter_than_the_start_time",
        "simulator/test_score.py::test_the_card_by_hand",
    ),
    _mode(
        11,
        "The burst is over before it is noticed",
        "A start is on the wire within a tick and half a second after the burst becomes visible. A pushed burst "
        "gets a turn of its own at once. A sample keeps the time at which it was observed.",
        "daemon/test_reaction_time.py::test_a_start_is_on_the_wire_within_a_tick_and_half_a_second",
        "daemon/test_reaction_time.py::test_capacity_comes_as_much_later_as_the_source_is_late",
        "daemon/test_early_turns.py::test_a_pushed_burst_starts_vms_at_once_and_the_grid_stays",
        "daemon/test_early_turns.py::test_an_early_turn_asks_the_provider_nothing_and_stops_nothing",
        "core/test_fold.py::test_the_age_of_a_sample_is_that_of_its_oldest_fresh_reading",
        "sources/test_cloudwatch_source.py::test_values_that_come_later_than_declared_are_asked_for_later",
    ),
    _mode(
        12,
        "Storms of repeated calls",
        "A call that changes something is sent once, whatever the SDK's settings. Without room, the daemon looks "
        "elsewhere, and one VM tries the place again at growing intervals.",
        "daemon/test_start_path.py::test_a_dry_place_is_tried_by_one_vm_each_time_its_time_is_over",
        "ec2/test_ec2_changes.py::test_a_failed_start_is_one_request_and_a_typed_outcome",
        "ec2/test_ec2_changes.py::test_no_variable_brings_the_retries_of_changes_back",
        "ec2/test_call_budget.py::test_nothing_but_a_refusal_for_the_budget_is_sent_again",
        "ec2/test_ec2_reactions.py::test_each_code_comes_back_as_what_the_table_says_and_nothing_is_started",
        "ec2/test_failure_modes_on_the_wire.py::"
        "test_what_is_needed_serves_all_the_same_within_few_calls_and_none_is_started_twice",
    ),
    _mode(
        13,
        "VMs on their way are not counted",
        "An order counts from the call on, until a listing confirms it or its time is over. Each VM counts once, "
        "and neither lagging listings nor quick ticks cause a second order.",
        "daemon/test_ledger_laws.py::test_the_ledger_counts_each_vm_once_and_equals_the_cloud_in_the_end",
        "daemon/test_loop_time.py::test_a_clock_set_back_repeats_no_order_that_is_not_listed_yet",
        "soak/test_lives.py::test_no_law_is_broken",
        "soak/test_lives.py::test_no_law_is_broken_where_the_clock_is_set",
        "daemon/test_start_path_laws.py::test_the_start_path_keeps_its_laws_in_a_bad_hour_and_is_whole_after_it",
        "daemon/test_loop_acting.py::test_a_lagging_listing_leads_to_no_second_start",
        "soak/test_soak.py::test_no_vm_was_started_twice",
    ),
    _mode(
        14,
        "Listings that lag, skip rows or break off",
        "A VM counts as gone only after three complete listings over some time without it. A partial listing "
        "proves nothing, an old one undoes nothing, and each launch has a client token.",
        "daemon/test_absent_vms.py::"
        "test_absence_needs_three_complete_listings_over_its_time_and_never_counts_partial_ones",
        "daemon/test_inventory_reconcile.py::test_a_listing_older_than_the_one_before_undoes_nothing",
        "daemon/test_loop_acting.py::test_rows_that_come_and_go_lose_no_vm",
        "daemon/test_loop_acting.py::test_a_provisioning_of_unknown_outcome_is_not_repeated",
        "contracts/test_provider_contract.py::test_the_same_token_never_creates_twice",
        "ec2/test_ec2_bad_days.py::test_a_failing_page_in_the_middle_keeps_what_came",
        "daemon/test_planning_choice.py::test_a_provision_has_a_token_of_its_own_per_tick_and_fleet",
    ),
    _mode(
        15,
        "A crash half way",
        "The intent is on disk before the call. If the daemon is killed at any await or during any write and then "
        "restarted, it leaves nothing behind and starts nothing twice. It decides as if it had never stopped, and "
        "still leaves places without room and broken VMs alone.",
        "crash/test_crash_points.py::test_a_crash_at_any_point_leaves_nothing_behind",
        "crash/test_crash_points.py::test_a_crash_at_any_point_of_the_recovery_from_a_crash",
        "crash/test_real_kill.py::test_a_daemon_killed_again_and_again_starts_no_vm_twice",
        "daemon/test_restoring.py::test_a_daemon_restarted_in_the_middle_decides_as_one_that_never_stopped",
        "daemon/test_restoring.py::test_dry_places_and_broken_vms_are_left_alone_after_a_crash_as_without_one",
        "daemon/test_loop_acting.py::test_intents_are_in_the_journal_before_the_provider_is_called",
        "daemon/test_refill.py::test_what_was_made_and_stopped_before_it_was_ready_is_never_started_and_is_swept",
    ),
    _mode(
        16,
        "Stopped VMs grow stale",
        "After a change of the launch template, the warm pool is replaced in shares, never below its floor and "
        "only within its windows. From time to time, stopped VMs are started, patched or checked by a command if "
        "the policy has one, and stopped again. VMs can be found by image, version and age.",
        "daemon/test_pool_freshness.py::"
        "test_after_a_change_of_the_template_the_pool_is_replaced_and_never_below_its_floor",
        "daemon/test_pool_freshness.py::"
        "test_no_more_go_at_a_time_than_the_share_of_the_pool_however_many_are_out_of_date",
        "daemon/test_pool_freshness.py::test_where_no_more_may_exist_the_old_goes_first_down_to_the_policys_floor",
        "daemon/test_pool_freshness.py::test_outside_its_windows_nothing_is_replaced_or_tried",
        "daemon/test_pool_freshness.py::test_a_stopped_vm_is_tried_seen_ready_and_stopped_again",
        "daemon/test_exercise_hooks.py::test_it_runs_once_the_vm_is_ready_and_the_vm_goes_back_into_the_pool",
        "daemon/test_exercise_hooks.py::"
        "test_a_vm_that_fails_is_stopped_and_kept_from_starting_over_a_restart_until_released",
        "control/test_pool_commands.py::test_vms_that_lack_a_patch_are_found_by_image_version_and_age",
        "contracts/test_launch_spec.py::test_the_digest_is_the_same_for_the_same_and_the_image_is_that_of_new_vms",
    ),
    _mode(
        17,
        "Running is not ready",
        "A VM serves once its probe passes and the balancer has admitted it. A VM that is never ready is stopped "
        "and left alone. A VM that was stopped before it was ready is not in the pool.",
        "daemon/test_start_path.py::test_a_vm_that_is_never_ready_is_stopped_and_left_alone",
        "daemon/test_drain.py::test_a_vm_is_in_service_once_the_balancer_has_admitted_it",
        "daemon/test_refill.py::test_a_vm_whose_image_has_not_said_that_it_is_done_is_not_in_the_pool",
        "daemon/test_refill.py::test_what_was_made_and_stopped_before_it_was_ready_is_never_started_and_is_swept",
        "contracts/test_provider_contract.py::test_checked_waits_for_the_guest",
    ),
    _mode(
        18,
        "People change VMs beside the daemon",
        "Starts and stops by others are noted, not undone within the policy's time, and corrected once after it. "
        "VMs of an Auto Scaling group are never touched, and VMs of fleets without a policy are reported.",
        "daemon/test_hands_off.py::test_a_vm_that_a_person_started_serves_and_is_not_stopped_within_the_time",
        "daemon/test_moved_vms.py::"
        "test_a_vm_that_is_tagged_for_another_fleet_is_that_fleets_from_the_next_listing_on",
        "daemon/test_refused_for_good.py::"
        "test_vms_that_cannot_be_stopped_keep_no_other_from_it_and_are_asked_ever_more_rarely",
        "daemon/test_hands_off.py::"
        "test_a_vm_that_a_person_stopped_is_not_started_within_the_time_and_others_are",
        "daemon/test_hands_off.py::"
        "test_vms_of_an_auto_scaling_group_are_neither_started_nor_stopped_and_it_is_said_once",
        "daemon/test_pool_words.py::test_adopted_and_disowned",
        "ec2/test_diagnosis.py::test_vms_of_fleets_that_no_policy_describes_are_told",
    ),
    _mode(
        19,
        "VMs are thrown away instead of being reused",
        "VMs that are no longer needed are stopped into the warm pool and started again from it. VMs beyond the "
        "wanted number are deleted at a limited rate, oldest first, and only if the daemon made them.",
        "daemon/test_refill.py::test_nothing_is_made_while_demand_is_being_served_or_just_was",
        "daemon/test_refill.py::"
        "test_vms_beyond_the_wanted_number_are_deleted_oldest_first_at_a_rate_and_only_ours",
        "daemon/test_failure_modes_acting.py::test_twenty_bursts_that_the_pool_can_serve_make_no_vm",
    ),
    _mode(
        20,
        "A VM that has just started is stopped",
        "No VM is stopped before it has served for the minimum time, counted from service and not from the order.",
        "daemon/test_start_path_laws.py::test_the_start_path_keeps_its_laws_in_a_bad_hour_and_is_whole_after_it",
        "daemon/test_inventory_reconcile.py::test_minimum_on_time_of_our_own_start_runs_from_service",
        "daemon/test_planning_choice.py::test_stops_respect_minimum_on_time_and_protection",
    ),
    _mode(
        21,
        "The warm pool costs more than it gives",
        "Starts from the pool and from nothing are measured. The daemon reports what the pool saves in seconds "
        "and money, or that this is not known.",
        "daemon/test_learning.py::test_the_worth_of_the_pool_is_what_was_measured",
        "daemon/test_learning.py::test_a_start_is_measured_part_by_part",
        "simulator/test_score.py::"
        "test_a_pool_that_avoids_nothing_has_no_price_per_second_and_one_that_pays_has_a_negative_cost",
    ),
    _mode(
        22,
        "An unexpected bill",
        "The cost of each tick is metered as EC2 bills it, including the minimum of each start and storage. It "
        "agrees with the embedded cloud's bill and with sums computed by hand, also for VMs that hibernate.",
        "cloud/test_world_laws.py::test_the_bill_of_three_vms_computed_by_hand",
        "cloud/test_world_laws.py::test_hibernating_is_billed_until_stopped",
        "daemon/test_hibernation.py::test_the_bill_of_the_daemon_is_the_worlds_to_the_end_of_saving",
        "daemon/test_metering.py::test_a_busy_span_is_billed_as_the_world_bills_it",
        "daemon/test_metering.py::test_a_start_costs_its_minimum_at_once_and_seconds_after_that",
        "simulator/test_lane_parity.py::test_the_lanes_bill_is_the_clouds",
    ),
    _mode(
        23,
        "A VM comes back with another address",
        "No VM's address is remembered: source, probe, balancer and the command after a start get the VM as the "
        "newest listing shows it. That command runs before the VM serves.",
        "contracts/test_source_contract.py::test_the_vms_may_change_from_read_to_read",
        "daemon/test_failure_modes_leaving.py::"
        "test_after_a_start_probe_balancer_and_source_are_given_the_new_address_before_the_vm_serves",
        "contracts/test_provider_contract.py::"
        "test_a_vm_has_another_public_address_after_each_start_and_none_while_it_is_off",
        "daemon/test_arrival_command.py::test_it_is_told_the_address_that_the_vm_has_now",
        "daemon/test_arrival_command.py::test_a_vm_serves_once_its_command_has_been_run_and_it_is_run_once_per_start",
    ),
    _mode(
        24,
        "Filling the pool gets in the way of the burst",
        "Nothing is made for the pool while demand is being served or just was. If both wait for the same budget, "
        "demand goes first. A VM that the pool could not supply is counted and reported, with advice.",
        "daemon/test_refill.py::test_a_burst_takes_what_is_ready_and_starts_before_anything_is_made",
        "daemon/test_refill.py::test_a_refill_waits_until_it_has_been_calm_for_long_enough",
        "daemon/test_missed_starts.py::test_what_the_pool_cannot_give_is_counted_told_of_once_and_shown",
        "ec2/test_call_budget.py::test_refills_stand_behind_demand",
        "daemon/test_failure_modes_acting.py::test_twenty_bursts_that_the_pool_can_serve_make_no_vm",
        "daemon/test_failure_modes_budget.py::test_no_vm_is_made_for_a_pool_before_those_that_a_burst_needs",
    ),
    _mode(
        25,
        "No way back from zero",
        "A policy may go to zero only if something outside the fleet says when to come back. Such a fleet comes "
        "up from zero and returns to it.",
        "config/test_policy_checks.py::test_scale_to_zero_on_the_fleets_own_signal",
        "config/test_policy_checks.py::test_scale_to_zero_with_a_signal_from_outside",
        "daemon/test_trusted_demand.py::test_a_fleet_works_off_its_queue_comes_up_from_zero_and_goes_back_to_it",
    ),
    _mode(
        26,
        "A rehearsal that acts, or that shows something else",
        "A fleet in shadow has nothing that could change a VM. With the same demand it decides, tick by tick, "
        "like a fleet that acts, and the cloud sees no change.",
        "shadow/test_shadow_fleet.py::"
        "test_in_shadow_the_numbers_move_as_if_it_acted_and_the_cloud_sees_no_change",
        "shadow/test_shadow_fleet.py::test_it_is_a_provider_and_holds_nothing_that_can_change_a_vm",
        "lifecycle/test_daemon_lifecycle.py::test_a_fleet_in_shadow_is_given_a_provider_that_cannot_change_anything",
        "cli/test_cli_run.py::test_the_acting_fleet_starts_and_the_one_in_shadow_touches_nothing",
        "shadow/test_failure_modes_rehearsal.py::"
        "test_in_shadow_each_tick_is_decided_as_if_it_acted_and_nothing_is_called",
    ),
    _mode(
        27,
        "Nobody can say why",
        "Each tick of a fleet is one record with its inputs and the reason of each stage that changed the wish. "
        "Each change of a VM is an action with its reason, and explain tells it in words.",
        "core/test_properties.py::test_every_stage_gives_a_reason_exactly_where_it_changes_the_wish",
        "daemon/test_decision_sentences.py::test_every_reason_has_words_of_its_own",
        "cli/test_cli_run.py::test_explain_tells_of_the_start_while_the_daemon_runs",
        "cli/test_cli_demo.py::test_every_start_of_the_journal_arrived_at_the_endpoint",
        "daemon/test_failure_modes_acting.py::"
        "test_each_change_of_a_vm_is_of_exactly_one_recorded_action_with_its_reason",
        "daemon/test_start_path.py::test_new_vms_are_made_in_the_next_subnet_and_then_as_the_next_type",
        "daemon/test_start_path.py::test_a_late_start_is_overtaken_and_stopped_on_arrival",
        "soak/test_lives.py::test_no_law_is_broken",
    ),
    _mode(
        28,
        "Who may act: pauses, overrides, a second daemon",
        "A pause holds from the next tick on, per verb and fleet, and records who, why and until when. One state "
        "directory has one daemon; a second one is told which is the first. A second daemon with a state "
        "directory of its own sees from the fleet's VMs that another one acts, leaves them alone, and takes over "
        "when the first has shown no sign of life for minutes.",
        "control/test_operators.py::test_paused_stops_stop_nothing_and_leave_every_start_as_it_was",
        "control/test_operators.py::test_paused_starts_leave_provisioning_and_both_paused_leave_nothing",
        "control/test_operators.py::test_allowances_of_many_changes",
        "control/test_operators.py::test_an_override_moves_the_bounds_both_ways_and_ends_by_itself",
        "control/test_operators.py::test_a_restart_keeps_what_is_in_force_and_drops_what_has_expired",
        "store/test_journal_on_disk.py::test_a_second_process_is_told_who_the_first_is",
        "cli/test_cli_run.py::test_a_second_daemon_on_the_same_state_directory_names_the_first",
        "daemon/test_failure_modes_leaving.py::test_a_pause_holds_from_the_next_tick_on",
        "daemon/test_failure_modes_leaving.py::test_two_daemons_that_see_the_same_choose_the_same_vms_and_make_none_twice",
        "daemon/test_lease.py::test_two_daemons_never_act_on_one_fleet_for_longer_than_listings_lag",
        "daemon/test_lease.py::test_no_shortage_is_answered_twice_beyond_the_takeover",
        "daemon/test_lease.py::test_one_acts_the_other_says_so_and_takes_over_when_the_first_is_gone",
        "daemon/test_lease.py::test_of_two_that_begin_at_the_same_moment_only_one_acts_though_the_others_tag_comes_late",
        "cli/test_cli_lease.py::test_the_second_daemon_is_kept_off_and_says_by_whom",
    ),
    _mode(
        29,
        "Quotas and VMs that cannot be stopped or started",
        "Before the bad day, doctor finds Spot VMs, VMs without an EBS root, VMs of other owners, mixed images, "
        "failed starts, VMs that cannot hibernate, balancers that do not fit and too small a quota. On the bad "
        "day, a quota that is used up holds only its family of types, VMs that are refused hibernation are "
        "stopped without it, and no saved memory grows too old.",
        "ec2/test_diagnosis.py::test_each_misfit_is_found_alone_and_names_its_vm",
        "ec2/test_diagnosis.py::test_headroom_counts_the_whole_pool_the_others_and_what_may_come",
        "daemon/test_start_path.py::test_a_quota_that_is_used_up_holds_the_family_and_no_other_type",
        "daemon/test_start_path.py::test_new_vms_beyond_a_quota_are_asked_for_once_and_then_as_another_family",
        "ec2/test_examining_fit.py::test_each_misfit_of_a_group_is_named_with_its_fix",
        "ec2/test_examining_fit.py::test_each_reason_not_to_hibernate_is_named_with_its_fix",
        "daemon/test_hibernation.py::"
        "test_what_the_provider_refuses_to_hibernate_is_stopped_at_once_and_never_asked_again",
        "daemon/test_hibernation.py::test_a_memory_is_renewed_in_time_and_the_vm_hibernates_again",
    ),
    _mode(
        30,
        "A bad policy, or a reload gone wrong",
        "Any text gives either a policy or an error with its place. A reload takes all or nothing, keeps the last "
        "good set even over a restart, and changes no decision of fleets that did not change.",
        "config/test_policy_files.py::test_whatever_the_text_there_is_a_policy_or_an_error_and_never_an_exception",
        "daemon/test_reload.py::test_what_cannot_be_used_leaves_the_last_good_set_and_is_said_once",
        "daemon/test_reload.py::test_a_change_of_one_policy_changes_no_decision_of_another_and_loses_no_order",
        "daemon/test_reload.py::test_an_unexpected_error_keeps_the_last_good_set_too",
        "daemon/test_failure_modes_policies.py::"
        "test_whatever_is_written_into_the_folder_a_set_is_in_use_that_was_good_as_a_whole",
        "daemon/test_last_good.py::test_a_restart_with_a_broken_file_goes_on_with_what_it_said_and_says_so",
        "config/test_policy_compile.py::test_office_hours_keep_their_local_time_over_both_changes",
    ),
)


def problems(modes: Sequence[Mode] = MODES, root: Path = ROOT) -> Iterator[str]:
    """Yield what is wrong with a table, one sentence each.

    Args:
        modes: The table.
        root: The folder that node ids are relative to.
    """
    if [mode.number for mode in modes] != list(range(1, len(modes) + 1)):
        yield "the numbers are not 1, 2, 3, …"
    for mode in modes:
        if not mode.tests:
            yield f"{mode.number}: no test is named"
        if len(set(mode.tests)) != len(mode.tests):
            yield f"{mode.number}: a test is named twice"
        for test in mode.tests:
            path, _, name = test.partition("::")
            if name not in _tests_in(root / path):
                yield f"{mode.number}: there is no test {test}"


@cache
def _tests_in(path: Path) -> frozenset[str]:
    """Names of the test functions in a file, found by parsing it; none if the file does not exist."""
    if not path.is_file():
        return frozenset()
    body = ast.parse(path.read_text(encoding="utf-8")).body
    functions = (node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))
