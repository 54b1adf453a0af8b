// The prices of the REST view, for programs. It can also set a price.
// Served by `manage.py run_daemon price_service`.

struct Price {
    1: string sku,
    2: string name,
    3: string supplier,
    4: string amount,       // "12.50": Thrift has no decimal numbers
    5: string currency,
    6: string since,        // ISO 8601
    7: i32 in_stock,
}

struct Change {
    1: string sku,
    2: optional string old_amount,      // absent: it had no price
    3: string amount,
}

exception NotFound {
    1: string message,
}

exception InvalidAmount {
    1: string message,
}

// The database did not answer. A change that was being made may or may not have taken effect.
exception Unavailable {
    1: string message,
}

service Prices {
    Price get_price(1: string sku)
        throws (1: NotFound not_found, 2: Unavailable unavailable),

    // The next 50 in the order of SKUs. An empty `after` means from the first one.
    list<Price> prices_of(1: string supplier, 2: string after)
        throws (1: NotFound not_found, 2: Unavailable unavailable),

    // Returns the change.
    Change set_price(1: string sku, 2: string amount)
        throws (1: NotFound not_found, 2: Unavailable unavailable, 3: InvalidAmount invalid),
}
