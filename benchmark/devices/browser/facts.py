"""A row's description of the device that shows a page."""

from __future__ import annotations

import re

from benchmark.devices.browser.exchange import PageInfo
from benchmark.schema import DeviceInfo

# Patterns of a user agent, in order of precedence: browsers also name the ones they imitate.
_BROWSERS = (
    (r"Edg(?:A|iOS)?/([\d.]+)", "Edge"),
    (r"OPR/([\d.]+)", "Opera"),
    (r"SamsungBrowser/([\d.]+)", "Samsung Internet"),
    (r"(?:Firefox|FxiOS)/([\d.]+)", "Firefox"),
    (r"(?:HeadlessChrome|Chrome|CriOS)/([\d.]+)", "Chrome"),
    (r"Version/([\d.]+).* Safari/", "Safari"),
)
_SYSTEMS = (
    (r"(?:iPhone|CPU) OS ([\d_]+)", "iOS"),
    (r"Android ([\d.]+)", "Android"),
    (r"Mac OS X ([\d_.]+)", "macOS"),
    (r"Windows NT ([\d.]+)", "Windows NT"),
    (r"CrOS \S+ ([\d.]+)", "ChromeOS"),
    (r"Linux()", "Linux"),
)
_GENERIC = re.compile(r"not.?a.?brand|^chromium", re.IGNORECASE)


def device_info(
    info: PageInfo | None, versions: dict[str, str], *, address: str | None
) -> DeviceInfo:
    """Return the device that shows a page; unknown values are None while no page was opened.

    versions: of the page's engines.
    """
    if info is None:
        return DeviceInfo(
            driver="browser",
            address=address,
            kind="real",
            model=None,
            soc=None,
            abi=None,
            cores=None,
            os=None,
            ram_mb=None,
            versions=versions,
        )
    return DeviceInfo(
        driver="browser",
        address=address,
        kind="real",
        model=info.model or _model(info.user_agent),
        soc=None,
        abi=info.architecture,
        cores=info.cores,
        os=_system(info),
        ram_mb=None if info.memory_gb is None else round(info.memory_gb * 1000),
        versions={"browser": browser(info), **versions},
        details={
            "user_agent": info.user_agent,
            "cross_origin_isolated": "yes" if info.isolated else "no",
            "secure_context": "yes" if info.secure else "no",
            "clock_us": f"{info.clock_us:g}",
            "webgpu": info.webgpu or "none",
        },
    )


def browser(info: PageInfo) -> str:
    """Return the browser's name and version, such as "Safari 17.5"."""
    brands = [brand for brand in info.brands if not _GENERIC.search(brand)] or [
        brand for brand in info.brands if brand.lower().startswith("chromium")
    ]
    if brands:
        return brands[0]
    return _first(_BROWSERS, info.user_agent) or "unknown"


def _system(info: PageInfo) -> str | None:
    if info.platform:
        return f"{info.platform} {info.platform_version or ''}".strip()
    return _first(_SYSTEMS, info.user_agent)


def _model(user_agent: str) -> str | None:
    """Return a phone's model; other devices do not tell it, and many phones say "K" for any."""
    match = re.search(r"\((iPhone|iPad|iPod)", user_agent)
    match = match or re.search(r"Android [\d.]+; ([^;)]+?)(?: Build/[^;)]*)?[;)]", user_agent)
    return None if match is None or match[1] in ("K", "Mobile", "Tablet") else match[1]


def _first(patterns: tuple[tuple[str, str], ...], text: str) -> str | None:
    for pattern, name in patterns:
        match = re.search(pattern, text)
        if match is not None:
            return f"{name} {match[1].replace('_', '.')}".strip()
    return None
