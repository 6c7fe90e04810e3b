from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.journey import expect_status, log_text, submit
from tests.client.real import Client

COUNT = 'for i in $(seq 20); do printf "\\033[32mline %s\\033[0m of 20\\n" $i; sleep 0.1; done'


def test_a_run_is_watched_from_submission_to_its_end_without_reloading(admin: Page) -> None:
    listed = admin.context.new_page()
    listed.goto("/runs")
    listed.evaluate("window.sameDocument = true")
    name = submit(admin, COUNT)
    admin.evaluate("window.sameDocument = true")
    row = listed.locator("tr", has_text=name)
    expect(row).to_be_visible(timeout=5000)
    expect(row.locator(".status-mark")).to_have_text("Running")
    expect(admin.locator(".log-state")).to_contain_text("Live")
    expect_status(admin, "Completed")
    expect(admin.locator(".log-state")).to_contain_text("Complete ·")
    expect(row.locator(".status-mark")).to_have_text("Completed")
    assert log_text(admin) == "\n".join(f"line {i} of 20" for i in range(1, 21))
    assert admin.locator(".log-line .fg-2").count() == 20
    for page in (admin, listed):
        assert page.evaluate("window.sameDocument")
    steps = admin.locator(".steps-line .step-name").all_text_contents()
    assert steps == ["Pending", "Queued", "Starting", "Running", "Terminating", "Completed"]


def test_a_run_of_the_real_client_is_watched_from_pending_to_completed(admin: Page, client: Client) -> None:
    admin.evaluate("window.sameDocument = true")
    name = client.submit(f"{COUNT}; date +%s%N | tee written", name="from-mcli")
    row = admin.locator("tr", has_text=name)
    expect(row).to_be_visible(timeout=5000)
    expect(row.locator(".status-mark")).to_have_text("Completed", timeout=30_000)
    assert admin.evaluate("window.sameDocument")
    row.get_by_role("link", name=name).click()
    expect(admin.locator(".log-state")).to_contain_text("Complete ·")
    plain = re.sub(r"\x1b\[\d+m", "", client.logs(name))
    assert log_text(admin) == plain.rstrip("\n")


def test_the_first_failed_rank_is_what_is_shown_of_a_failure(admin: Page) -> None:
    submit(admin, 'echo "I am $NODE_RANK"\nsleep 1\n[ $NODE_RANK = 0 ] || exit 7\nsleep 60', nodes=2)
    expect_status(admin, "Failed")
    admin.reload()
    expect(admin.get_by_role("tab", name="Rank 1")).to_have_attribute("aria-selected", "true")
    expect(admin.locator(".log-line")).to_have_text(["I am 1"])
    admin.get_by_role("tab", name="Rank 0").click()
    expect(admin.locator(".log-line").first).to_have_text("I am 0")
    expect(admin.locator(".why")).to_contain_text("exit code 7")


def test_stop_restart_and_delete_from_the_page(admin: Page) -> None:
    name = submit(admin, "echo up; sleep 300")
    expect(admin.locator(".log-line")).to_have_text(["up"])
    admin.get_by_role("button", name="Stop", exact=True).click()
    admin.get_by_label("Why").fill("enough")
    admin.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect_status(admin, "Stopped")
    expect(admin.locator(".why")).to_contain_text("UserStopped")
    admin.get_by_role("button", name="Restart").click()
    admin.get_by_role("dialog").get_by_role("button", name="Restart").click()
    expect(admin.locator(".facts")).to_contain_text("2 of 2")
    expect_status(admin, "Running")
    admin.get_by_role("button", name="Delete").click()
    admin.get_by_role("dialog").get_by_role("button", name="Delete").click()
    admin.wait_for_url("**/runs")
    expect(admin.locator("#messages")).to_contain_text(f"{name} is deleted")
    expect(admin.locator("tr", has_text=name)).to_have_count(0)


def test_a_mistake_in_the_yaml_is_shown_at_its_line(admin: Page) -> None:
    from tests.browser.conftest import expect_problem

    expect_problem(admin, "400 (Bad Request)")
    admin.goto("/runs/new")
    admin.locator("#editor textarea").focus()
    admin.keyboard.press("Control+a")
    admin.keyboard.insert_text("name: hello\nimage: x\ncompute:\n  cluster: nowhere\ncommand: echo\n")
    admin.get_by_role("button", name="Submit").click()
    expect(admin.get_by_role("alert")).to_contain_text("nowhere")
    expect(admin.locator(".ace_content")).to_contain_text("cluster: nowhere")


def test_a_key_is_made_and_revoked(admin: Page) -> None:
    admin.goto("/profile")
    admin.get_by_label("Name").fill("notebook")
    admin.get_by_role("button", name="Create key").click()
    expect(admin.locator("#key-exports")).to_contain_text("export MOSAICML_API_KEY=ryk_")
    row = admin.locator("tr", has_text="notebook")
    row.get_by_role("button", name="Revoke").click()
    admin.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_have_count(0)
