# Tables and figures: a rule for each group of the catalogue leaf.analysis.products.

from leaf.analysis.products import by_group


def files_of(product):
    """The outputs of a product, with what the report says of it."""
    *others, shown = PLAN.files(product)
    group = product.group
    about = report(
        shown,
        caption=f"../report/{product.caption}",
        category=product.category or group.category or PLAN.title,
        subcategory=group.subcategory,
        labels={"shows": product.title, **group.labels},
    )
    return [*others, about]


for group, group_products in by_group().items():

    rule:
        name:
            group.rule
        input:
            PLAN.runs_of(group),
        output:
            **{product.name: files_of(product) for product in group_products},
        log:
            PLAN.log(group),
        localrule: True
        params:
            **PLAN.parameters(group),
        shell:
            "{params.command} > {log} 2>&1"
