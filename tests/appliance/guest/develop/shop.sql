-- A shop's books: 20,000 customers and 600,000 orders; the same bytes each time.
pragma page_size = 4096;
create table customers (id integer primary key, name text, city text);
create table orders (id integer primary key, customer integer, day integer, cents integer, remark text);
with recursive n(i) as (values (1) union all select i + 1 from n where i < 20000)
insert into customers select i, printf('customer %08x', i * 2654435761 & 4294967295), printf('city %d', i * 7919 % 997) from n;
with recursive n(i) as (values (1) union all select i + 1 from n where i < 600000)
insert into orders
select i, 1 + (i * 2654435761 & 4294967295) % 20000, i / 400, (i * 40503 & 65535) + 1,
    printf('%08x%08x%08x%08x', i * 2246822519 & 4294967295, i * 3266489917 & 4294967295, i * 668265263 & 4294967295,
           i * 374761393 & 4294967295)
from n;
create index orders_by_customer on orders (customer);
create index orders_by_day on orders (day, cents);
analyze;
