"""The 75 faults that the cloud nodes have to survive, each with the tests it is played in.

A place is a piece of a test's id, ``*`` standing for anything. ``test_fault_ids.py`` fails if one leads nowhere, and
the recorded table names the faults of its rows.
"""

from __future__ import annotations

import re

BEFORE, SUBMIT, POLL, FILE, CONTROL, KILL, SECRETS = (
    f"test_{name}.py::"
    for name in ("before_paying", "submission", "polling", "download_faults", "stops_and_restarts", "kill", "secrets")
)
STOP = f"{CONTROL}test_stop_"

FAULTS: dict[str, tuple[str, tuple[str, ...]]] = {
    # before the submission
    "F1": ("no key, or one with spaces or control characters", (
        f"{BEFORE}test_without_a_key", f"{BEFORE}test_spaces_around_a_key",
        f"{BEFORE}test_a_key_with_a_bad_character")),
    "F2": ("values out of range, no number in a frame, a batch", (
        f"{BEFORE}test_what_is_not_allowed", "test_node_images.py::test_a_batch_is_refused")),
    "F3": ("frames too big for the budget", (f"{BEFORE}test_a_frame_too_big", f"{BEFORE}test_frames_too_big")),
    "F4": ("no room or no right to write", (
        f"{BEFORE}test_a_folder_that_cannot_be_written", "test_run.py::test_too_little_room")),
    "F5": ("upload answers 500, 500, 200", (f"{BEFORE}test_upload[*: upload 500, 500, then good]",)),
    "F6": ("signed upload answers 403", (
        f"{BEFORE}test_upload[*: signed PUT 403, then good]", f"{BEFORE}test_signed_upload_refused_for_good")),
    "F7": ("upload names no usable address", (
        f"{BEFORE}test_upload[*: upload answers without download_url]", f"{BEFORE}test_upload[*: upload gives")),
    "F8": ("the same frame twice, or again within a day", (
        f"{BEFORE}test_the_same_image_is_uploaded_once", "test_uploads.py::test_three_nodes")),
    # the submission
    "F9": ("400 with the name of a field", (f"{SUBMIT}test_submit[*: 400 that names the prompt]",)),
    "F10": ("400 that names an image", (
        f"{SUBMIT}test_submit[gmi: frames taken as", f"{SUBMIT}test_submit[gmi: no form of the frames is taken]")),
    "F11": ("401", (f"{SUBMIT}test_submit[*: 401",)),
    "F12": ("402", (f"{SUBMIT}test_submit[*: 402",)),
    "F13": ("403, 404", (f"{SUBMIT}test_submit[*: 403]", f"{SUBMIT}test_submit[*: 404, model")),
    "F14": ("409", (f"{SUBMIT}test_submit[*: 409]",)),
    "F15": ("413", (f"{SUBMIT}test_submit[gmi: 413", f"{SUBMIT}test_submit[wavespeed: 413]")),
    "F16": ("422 with a list of details", (f"{SUBMIT}test_submit[*: 422 with a list of details]",)),
    "F17": ("429 with Retry-After in seconds", (f"{SUBMIT}test_submit[*: 429 with Retry-After 3]",)),
    "F18": ("429 with Retry-After as a date, our clock wrong", (f"{SUBMIT}test_retry_after_as_a_date",)),
    "F19": ("429 without Retry-After, again and again", (
        f"{SUBMIT}test_submit[*: 429 without Retry-After]", f"{SUBMIT}test_submit[*: 429 again and again]",
        f"{SUBMIT}test_backoff_has_jitter")),
    "F20": ("429 with Retry-After of a day", (f"{SUBMIT}test_submit[*: 429 with Retry-After of a day]",)),
    "F21": ("500 that wraps a rejection", (f"{SUBMIT}test_submit[gmi: 500 that wraps a rejection]",)),
    "F22": ("500, 502, 504", tuple(f"{SUBMIT}test_submit[*: {status}, and " for status in (500, 502, 504))),
    "F23": ("503 with and without Retry-After", (
        f"{SUBMIT}test_submit[*: 503 with Retry-After]", f"{SUBMIT}test_submit[*: 503, and ")),
    "F24": ("no connection, no name, no trusted certificate", (
        f"{SUBMIT}test_a_cloud_out_of_reach_costs_nothing", f"{SUBMIT}test_a_connection_that_never_comes",
        f"{SUBMIT}test_a_certificate_nobody_trusts")),
    "F25": ("reset after the body, no answer in time", (
        f"{SUBMIT}test_submit[*: reset after the body was sent", f"{SUBMIT}test_no_answer_in_time_is_looked_up",
        f"{SUBMIT}test_an_answer_that_drips")),
    "F26": ("reset half-way through the body", (f"{SUBMIT}test_submit[*: reset half-way through the body]",)),
    "F27": ("200 with HTML, nothing, half of it or 60 MB", tuple(
        f"{SUBMIT}test_submit[*: 200 with {what}"
        for what in ("a page of HTML]", "an empty body]", "JSON cut short]", "60 MB"))),
    "F28": ("an id that is missing, null, empty, a number or a path", (
        f"{SUBMIT}test_submit[*: answer without an id]", f"{SUBMIT}test_submit[*: answer with id null]",
        f"{SUBMIT}test_submit[*: answer with an empty id]", f"{SUBMIT}test_submit[*: answer with a number for an id]",
        f"{SUBMIT}test_submit[*: answer with an id that climbs]")),
    "F29": ("HTTP 200 around another code or no data", (f"{SUBMIT}test_submit[wavespeed: HTTP 200 ",)),
    "F30": ("the answer to the submission is the last one", (
        f"{SUBMIT}test_submit[*: answer is already the last one]",)),
    "F31": ("redirects", (f"{SUBMIT}test_a_redirected_submission", f"{SUBMIT}test_a_redirect_that_may_mean_done")),
    "F32": ("none, one or two in the list, or no list", (
        f"{SUBMIT}test_submit[*: lost answer, ", f"{SUBMIT}test_two_jobs_that_could_be_ours",
        f"{SUBMIT}test_an_unknown_submission_is_not_resent_too_soon", f"{SUBMIT}test_a_job_far_down_the_list")),
    # while the job runs
    "F33": ("5xx, resets and silence between good polls", (
        f"{POLL}test_poll[*: 500 between good polls]", f"{POLL}test_poll[*: resets between good polls]",
        f"{POLL}test_poll[*: 500 for ten minutes]", f"{POLL}test_a_poll_without_an_answer_in_time")),
    "F34": ("401 in mid-job", (f"{POLL}test_poll[*: 401, the key was revoked",)),
    "F35": ("404 at first, and for good", (
        f"{POLL}test_poll[*: 404 right after the submission",
        f"{POLL}test_poll[*: 404 for good, and its list lacks it too]")),
    "F36": ("429 on a poll", (f"{POLL}test_poll[*: 429 with Retry-After]",)),
    "F37": ("wrong types", (f"{POLL}test_poll[*: fields of the wrong types]",)),
    "F38": ("an unknown status", (
        f"{POLL}test_poll[*: unknown status, then done]", f"{POLL}test_poll[*: unknown status for ever]")),
    "F39": ("a status that goes back", (f"{POLL}test_poll[*: status that goes back]",)),
    "F40": ("one end, then another", (f"{POLL}test_poll[*: done, then another end",)),
    "F41": ("a record of another job or model", (f"{POLL}test_poll[*: record of another ",)),
    "F42": ("queued beyond the limit", (
        f"{POLL}test_poll[*: waiting beyond the limit]", f"{POLL}test_stuck_job_names_its_id")),
    "F43": ("the system clock jumps a day", (f"{POLL}test_a_jump_of_the_system_clock",)),
    "F44": ("the machine sleeps for two hours", (f"{POLL}test_after_a_sleep_of_the_machine",)),
    "F45": ("failed, with all sorts of messages", (
        f"{POLL}test_poll[*: failed with a message]", f"{POLL}test_poll[*: failed without a message]",
        f"{POLL}test_poll[*: failed with 100 kB", f"{POLL}test_poll[*: failed with markup")),
    "F46": ("cancelled, timeout, deleted", (
        f"{POLL}test_poll[*: cancelled]", f"{POLL}test_poll[*: timeout]", f"{POLL}test_poll[*: deleted]")),
    "F47": ("withheld by the content filter", (
        f"{POLL}test_poll[*: failed for content policy]", f"{POLL}test_poll[*: failed with the code of moderation]",
        f"{POLL}test_poll[*: completed, empty, flagged]")),
    "F48": ("done without an address, with one later or never", (
        f"{POLL}test_poll[*: done without a URL", f"{POLL}test_poll[*: done and never a URL]")),
    "F49": ("a thumbnail alone", (f"{POLL}test_poll[gmi: done with a thumbnail alone]",)),
    # the file
    "F50": ("cut short, with and without a length", (
        f"{FILE}test_download[*: cut short, with a length]", f"{FILE}test_download[*: cut short, without a length]",
        f"{FILE}test_resume_asks_for_the_missing_bytes", "test_download_again.py::test_two_halves_of_different_files")),
    "F51": ("Range ignored, 416", (
        f"{FILE}test_download[*: cut short, then Range is ignored]", f"{FILE}test_download[*: cut short, then 416]")),
    "F52": ("a page in place of the clip, a clip of another type", (
        f"{FILE}test_download[*: a page of HTML", f"{FILE}test_download[*: a JSON error",
        f"{FILE}test_download[*: another Content-Type")),
    "F53": ("nothing, 10 GB, no end", (
        f"{FILE}test_download[*: zero bytes]", f"{FILE}test_download[*: 10 GB announced]",
        f"{FILE}test_an_endless_download")),
    "F54": ("cut at the border of a box", (f"{FILE}test_download[*: cut at the border of a box",)),
    "F55": ("the wrong md5", (f"{FILE}test_download[*: the wrong md5",)),
    "F56": ("403, 404, 410", (f"{FILE}test_download[*: 403, then good", f"{FILE}test_download[*: 404, then good",
            f"{FILE}test_download[*: 410, then good", f"{FILE}test_download[*: 403 to every URL]",
            f"{FILE}test_download[*: 410 to every URL]")),
    "F57": ("a host that drips", (f"{FILE}test_a_dripping_download",)),
    "F58": ("redirects, good and bad", (
        f"{FILE}test_a_redirect_to_a_bad_place", f"{FILE}test_a_redirect_to_a_good_place")),
    "F59": ("a name that resolves to a private address", (f"{FILE}test_a_name_that_resolves_to_a_private",)),
    "F60": ("a full disk in mid-download", (f"{FILE}test_full_disk_in_mid_download",)),
    "F61": ("killed between the last byte and the rename", (f"{FILE}test_death_between_the_last_byte",)),
    # stops, restarts, many at once
    "F62": ("stopped at any stage", (
        f"{STOP}in_the_middle_of_a_request[*-stop]", f"{STOP}while_waiting[*-stop]", f"{STOP}before_anything",
        "test_uploads.py::test_stop_counts_while_a_name",
        "test_download_again.py::test_stopped_while_the_file_is_checked",
        "test_node_frames.py::test_a_stop_while_frames_are_read")),
    "F63": ("stopped while the submission is in flight", (f"{STOP}while_the_submission_is_in_flight*-stop]",)),
    "F64": ("a sibling node fails at any stage", (
        f"{STOP}in_the_middle_of_a_request[*-cancel]", f"{STOP}while_waiting[*-cancel]",
        f"{STOP}while_the_submission_is_in_flight*-cancel]", f"{CONTROL}test_unfinished_jobs_do_not_hold_the_loop")),
    "F65": ("killed after the intent, before the submission", (f"{KILL}test_killed_after_the_intent",)),
    "F66": ("killed after the submission, before its id was saved", (
        f"{KILL}test_killed_after_the_cloud_made_the_job",)),
    "F67": ("killed while polling or downloading", (
        f"{KILL}test_killed_while_polling", f"{KILL}test_killed_while_downloading",
        f"{KILL}test_killed_between_the_submission_and_the_first_poll")),
    "F68": ("a damaged journal, or one that can't be written", (
        f"{CONTROL}test_a_damaged_journal_entry", f"{BEFORE}test_a_folder_that_cannot_be_written*[state]")),
    "F69": ("the same inputs in two nodes", (f"{CONTROL}test_two_nodes_with_the_same_inputs",)),
    "F70": ("different inputs in two nodes", (f"{CONTROL}test_two_nodes_with_different_inputs",)),
    "F71": ("the same inputs after success", (
        f"{CONTROL}test_same_inputs_after_success", f"{CONTROL}test_a_lost_file_is_downloaded_again",
        f"{CONTROL}test_an_expired_result_is_bought_again_only_as_another_take")),
    "F72": ("forty nodes at once", (f"{CONTROL}test_forty_jobs_at_once",)),
    "F73": ("another key, another cloud", (
        f"{CONTROL}test_a_clip_that_is_here_is_used_with_any_key", f"{CONTROL}test_another_cloud",
    )),
    "F74": ("a netrc entry, a proxy", (
        f"{SECRETS}test_netrc_is_not_used", f"{SECRETS}test_proxy_variables_are_honoured")),
    "F75": ("what errors hang on", (f"{SECRETS}test_a_cloud_that_echoes_the_key", f"{SECRETS}test_a_failed_record")),
}  # fmt: skip


def place(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", ".*"))


PLACES = {name: [place(pattern) for pattern in patterns] for name, (_, patterns) in FAULTS.items()}


def faults_of(test: str) -> tuple[str, ...]:
    """The faults that a test plays, by its id."""
    return tuple(name for name, places in PLACES.items() if any(found.search(test) for found in places))
