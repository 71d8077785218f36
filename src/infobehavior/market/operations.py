"""The operations of the simulated market, and the types of normal sellers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SellerType:
    """What sellers of a type have in common.

    Attributes:
        share: of all sellers.
        mix: weight of each operation that isn't 1.
        peaks: local hours of the day around which they work, each as often.
        weekend: activity on Saturdays and Sundays, of that on other days.
    """

    share: float
    mix: dict[str, float]
    peaks: tuple[float, ...]
    weekend: float


REGULAR = (
    "post_product", "edit_product", "sell", "delete_product", "upload_picture", "change_price", "reply_message",
    "read_message", "ship_order", "refund", "view_statistics", "decorate_shop", "join_promotion", "create_coupon",
    "review_product", "export_orders", "withdraw", "modify_profile", "verify",
)  # fmt: skip
"""Operations that sellers do again and again, in the middle of a session."""

LOGIN, MODIFY_PASSWORD, REGISTER, OPEN_SHOP = "login", "modify_password", "register", "open_shop"
"""A session begins with a login; passwords are changed rarely; registering and opening a shop happen once."""

OPERATIONS = (*REGULAR, LOGIN, MODIFY_PASSWORD, REGISTER, OPEN_SHOP)

RARE = {
    "verify": 0.15,
    "modify_profile": 0.1,
    "withdraw": 0.3,
    "refund": 0.4,
    "export_orders": 0.3,
    "decorate_shop": 0.4,
}
"""Weights of operations that all types do less often."""

CHANGES = {"verify": 2.0, MODIFY_PASSWORD: 0.8, "modify_profile": 1.0}
"""What is done on the first days of an account that was taken over, by weight; some normal sellers do it often too."""

FAILURE_RATES = {"login": 0.04, "verify": 0.12, "modify_profile": 0.06, "modify_password": 0.08}
"""How often operations of the median seller fail, of those that can (3.3.3: login, verify and modify)."""

BURST_OPERATIONS = ("post_product", "edit_product", "change_price", "upload_picture")
"""What tools do in bursts."""

TYPES = (
    SellerType(0.30, {"reply_message": 4, "read_message": 4, "sell": 3, "ship_order": 3}, (10.5, 15.0, 20.5), 0.9),
    SellerType(0.20, {"post_product": 4, "edit_product": 4, "change_price": 3}, (9.5, 14.5), 0.35),
    SellerType(0.15, {"ship_order": 5, "export_orders": 8, "sell": 4}, (9.0, 13.5, 17.0), 0.6),
    SellerType(0.20, {"post_product": 3, "upload_picture": 4, "read_message": 3}, (12.5, 21.5), 1.5),
    SellerType(0.15, {"view_statistics": 5, "create_coupon": 4, "join_promotion": 4}, (11.0, 22.5), 1.0),
)  # fmt: skip

CITIES = (
    "Hangzhou", "Guangzhou", "Shenzhen", "Shanghai", "Beijing", "Yiwu", "Ningbo", "Wenzhou", "Jinhua", "Suzhou",
    "Nanjing", "Wuxi", "Xiamen", "Fuzhou", "Quanzhou", "Chengdu", "Chongqing", "Wuhan", "Changsha", "Zhengzhou",
    "Qingdao", "Jinan", "Tianjin", "Shenyang", "Dalian", "Xi'an", "Hefei", "Nanchang", "Kunming", "Nanning",
    "Foshan", "Dongguan", "Shantou", "Jiaxing", "Shaoxing", "Taizhou", "Baoding", "Shijiazhuang", "Harbin", "Linyi",
)  # fmt: skip

CITY_WEIGHTS: NDArray[np.float64] = 1 / np.arange(2, len(CITIES) + 2)
"""Some cities have many more sellers than others."""


def mix_weights(seller_type: SellerType) -> NDArray[np.float64]:
    """Weight of each regular operation, adding up to 1."""
    weights = np.array([seller_type.mix.get(name, 1.0) * RARE.get(name, 1.0) for name in REGULAR])
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares
