// One number of a buffer in which it lies by four (`Quad` of common/wide.wgsl) or by itself: read, and stored, where no other invocation
// stores its three neighbours.
{%- macro element(buffer, at, by_four) -%}
{% if by_four %}unpack({{ buffer }}[{{ at }} / 4u])[{{ at }} % 4u]{% else %}{{ buffer }}[{{ at }}]{% endif %}
{%- endmacro %}
{%- macro put(buffer, at, value, by_four) -%}
{% if by_four %}var whole = unpack({{ buffer }}[{{ at }} / 4u]);
                whole[{{ at }} % 4u] = {{ value }};
                {{ buffer }}[{{ at }} / 4u] = pack(whole);{% else %}{{ buffer }}[{{ at }}] = {{ value }};{% endif %}
{%- endmacro %}
