"""How well the texts of a page stand out, as WCAG 2 computes it."""
from __future__ import annotations

FAINT = """(() => {
    const context = Object.assign(document.createElement("canvas"), {width: 1, height: 1})
        .getContext("2d", {willReadFrequently: true});
    const known = new Map();
    const colour = text => known.get(text) ?? known.set(text, painted(text)).get(text);
    const painted = text => {
        context.clearRect(0, 0, 1, 1);
        context.fillStyle = text;
        context.fillRect(0, 0, 1, 1);
        const [red, green, blue, alpha] = context.getImageData(0, 0, 1, 1).data;
        return [red, green, blue, alpha / 255];
    };
    const over = (upper, lower) => [0, 1, 2].map(i => upper[i] * upper[3] + lower[i] * (1 - upper[3]));
    const above = element => element ? [element, ...above(element.parentElement)] : [];
    const ground = element => above(element).map(each => colour(getComputedStyle(each).backgroundColor))
        .reduceRight((lower, upper) => over(upper, lower), [255, 255, 255]);
    const linear = each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4;
    const light = rgb => rgb.map(each => linear(each / 255))
        .reduce((sum, each, i) => sum + each * [0.2126, 0.7152, 0.0722][i], 0);
    const ratio = (element, property = "color") => {
        const behind = ground(property === "color" ? element : element.parentElement);
        const ink = [...colour(getComputedStyle(element)[property])];
        ink[3] *= above(element).reduce((product, each) => product * getComputedStyle(each).opacity, 1);
        const [dark, bright] = [light(over(ink, behind)), light(behind)].sort((a, b) => a - b);
        return (bright + 0.05) / (dark + 0.05);
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), faint = [];
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || element.getBoundingClientRect().width < 2) continue;
        if (element.closest("noscript, option, .katex-mathml, :disabled")) continue;
        if (ratio(element) < 4.5) faint.push([texts.currentNode.data, element.className, ratio(element)]);
    }
    for (const field of document.querySelectorAll(".composer, input:not([type=search]), :not(.composer) > textarea")) {
        if (!field.checkVisibility()) continue;
        const found = ratio(field, "borderTopColor");
        if (found < 3) faint.push(["", field.className || field.name, found]);
    }
    return faint;
})()"""
"""The texts that are seen with a contrast below 4.5, and the borders of fields with one below 3."""
