"""The texts of the tables, in English and in Chinese."""
# ruff: noqa: RUF001  these are Chinese punctuation marks

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Language: TypeAlias = Literal["en", "zh"]


class Text(NamedTuple):
    en: str
    zh: str

    def in_language(self, language: Language) -> str:
        return self.en if language == "en" else self.zh


REMEDIES = {
    "nothing": Text("nothing", "什么都不做"),
    "health checks": Text("`CONN_HEALTH_CHECKS` alone", "只开 `CONN_HEALTH_CHECKS`"),
    "retry": Text("a retry", "出错重试"),
    "cleaned": Text("the decorator, `CONN_MAX_AGE = 0`", "装饰器，`CONN_MAX_AGE = 0`"),
    "cleaned, kept": Text(
        "the decorator, `CONN_MAX_AGE = None`, health checks",
        "装饰器，`CONN_MAX_AGE = None`，开健康检查",
    ),
    "daemonkit": Text("daemonkit", "daemonkit"),
}
FAULTS = {
    "killed while idle": Text(
        "`KILL` while idle: the next 3 units of work", "空闲时被 `KILL`：之后的 3 次"
    ),
    "timed out while idle": Text(
        "`wait_timeout` while idle: the next 3 units", "空闲超过 `wait_timeout`：之后的 3 次"
    ),
    "killed in a query": Text(
        "`KILL` during a query: this unit, and the next 3",
        "查询执行中被 `KILL`：这一次，以及之后的 3 次",
    ),
    "lost in commit": Text(
        "the answer to COMMIT is lost: rows after one write",
        "COMMIT 已生效但应答丢失：写一次，库里有几行",
    ),
    "called in atomic": Text(
        "called inside a caller's `atomic()`: the row that the caller wrote",
        "在调用方的 `atomic()` 里被调用：调用方写入的那一行",
    ),
    "child exits": Text(
        "a forked child ends by `sys.exit()`: the parent's next query",
        "fork 出的子进程以 `sys.exit()` 结束：父进程的下一条查询",
    ),
    "child works": Text("a forked child runs a query", "fork 出的子进程执行查询"),
    "pool, loop": Text(
        "the sessions of 4 pool threads are killed, the remedy is around the main loop",
        "线程池 4 个线程的会话被杀，只在主循环上处理",
    ),
    "pool, jobs": Text("the same, the remedy is around each job", "同上，在每个任务上处理"),
    "sessions left": Text(
        "4 threads have ended: sessions left on the server",
        "4 个线程已结束：服务器上遗留的会话",
    ),
    "half-open": Text(
        "the network starts to drop packets during a unit; no `read_timeout`",
        "执行途中网络开始丢包，没有设 `read_timeout`",
    ),
}
OUTCOMES = {
    "failed": Text("{} of {} fail", "{1} 次中失败 {0} 次"),
    "fails, then": Text("fails, then {} of {} fail", "失败；之后 {1} 次中失败 {0} 次"),
    "runs again, then": Text(
        "**runs twice**, then {} of {} fail", "**执行了两遍**；之后 {1} 次中失败 {0} 次"
    ),
    "rows and an error": Text("{}, and an error", "{} 行，有报错"),
    "rows, no error": Text("**{}, no error**", "**{} 行，没有报错**"),
    "row kept": Text("kept", "还在"),
    "row lost, an error": Text("lost, and an error", "丢失，有报错"),
    "row lost, no error": Text("**lost, no error**", "**丢失，没有报错**"),
    "parent fails": Text("fails", "失败"),
    "unharmed": Text("succeeds", "正常"),
    "shares the session": Text("**in the parent's session**", "**用的是父进程的会话**"),
    "ends the parent's session": Text("ends the parent's session", "断掉了父进程的会话"),
    "own session": Text("in a session of its own", "用自己的会话"),
    "sessions": Text("{}", "{} 个"),
    "hangs": Text("hangs", "一直挂着"),
    "cut": Text("cut at `tick_timeout`", "到 `tick_timeout` 被切断"),
}

DECORATORS = {
    "nothing": Text("no call", "不调用"),
    "before": Text("only before", "只在之前"),
    "after": Text("only after", "只在之后"),
    "both": Text("before and after", "前后都调用"),
    "daemonkit": Text("daemonkit", "daemonkit"),
}
SETTINGS_HEADS = Text("`CONN_MAX_AGE`", "`CONN_MAX_AGE`"), Text("health checks", "健康检查")
CHECKS = {False: Text("off", "关"), True: Text("on", "开")}
LOSSES_FAILED = Text("{} of {}", "{} / {}")
HELD_AT_ZERO = Text("at `0`: is a session held while idle?", "设为 `0` 时，空闲期间占着会话吗")
HELD = {False: Text("no", "否"), True: Text("yes", "是")}
